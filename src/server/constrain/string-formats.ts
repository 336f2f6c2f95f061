// Formats of strings as patterns, each a part of what the format allows: enough to write a value, never a wrong one.

const DATE = String.raw`\d{4}-((0[13578]|1[02])-(0[1-9]|[12]\d|3[01])|(0[469]|11)-(0[1-9]|[12]\d|30)|02-(0[1-9]|1\d|2[0-8]))`
const TIME = String.raw`([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,6})?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)`
const LABEL = '[A-Za-z0-9]([A-Za-z0-9-]{0,30}[A-Za-z0-9])?'
const HOST = `${LABEL}(\\.${LABEL}){0,3}\\.[A-Za-z]{2,10}`
const NAME = '[A-Za-z0-9_+-]{1,20}'
const OCTET = String.raw`(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)`
const HEX = '[0-9a-f]'
const DAYS = String.raw`(\d{1,3}Y(\d{1,3}M(\d{1,3}D)?)?|\d{1,3}M(\d{1,3}D)?|\d{1,3}D)`
const HOURS = String.raw`(\d{1,3}H(\d{1,3}M(\d{1,3}S)?)?|\d{1,3}M(\d{1,3}S)?|\d{1,3}S)`

/** Unknown formats are annotations, as JSON Schema has it. */
export const FORMATS: Readonly<Record<string, string>> = {
  date: `^${DATE}$`,
  time: `^${TIME}$`,
  'date-time': `^${DATE}T${TIME}$`,
  duration: String.raw`^P(\d{1,3}W|${DAYS}(T${HOURS})?|T${HOURS})$`,
  email: `^${NAME}(\\.${NAME}){0,2}@${HOST}$`,
  hostname: `^${HOST}$`,
  uri: `^https?://${HOST}(/[A-Za-z0-9_.~-]{0,32}){0,8}$`,
  ipv4: `^${OCTET}(\\.${OCTET}){3}$`,
  ipv6: `^[0-9a-f]{1,4}(:[0-9a-f]{1,4}){7}$`,
  uuid: `^${HEX}{8}-${HEX}{4}-4${HEX}{3}-[89ab]${HEX}{3}-${HEX}{12}$`,
}
