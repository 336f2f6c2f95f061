// Protocol buffers, as far as run logs need them: fields to bytes. A message is its fields in a row.

/** An integer or boolean field; what is negative is written as int64. */
export function varint(field: number, value: number | bigint | boolean): Buffer {
  return Buffer.concat([tag(field, 0), base128(BigInt.asUintN(64, BigInt(value)))])
}

export function double(field: number, value: number): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeDoubleLE(value)
  return Buffer.concat([tag(field, 1), bytes])
}

export function float(field: number, value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeFloatLE(value)
  return Buffer.concat([tag(field, 5), bytes])
}

/** A string, or a message's bytes. */
export function bytes(field: number, value: string | Buffer): Buffer {
  const content = typeof value === 'string' ? Buffer.from(value, 'utf8') : value
  return Buffer.concat([tag(field, 2), base128(BigInt(content.length)), content])
}

/** A message inside a message. */
export function message(field: number, ...fields: readonly Buffer[]): Buffer {
  return bytes(field, Buffer.concat(fields))
}

/** A field for each text, none for an empty list. */
export function texts(field: number, values: readonly string[]): Buffer {
  return Buffer.concat(values.map((value) => bytes(field, value)))
}

function tag(field: number, wireType: number): Buffer {
  return base128(BigInt((field << 3) | wireType))
}

/** Seven bits a byte, the lowest first; the top bit says that more follow. */
function base128(value: bigint): Buffer {
  const out: number[] = []
  let rest = value
  while (rest >= 0x80n) {
    out.push(Number(rest & 0x7fn) | 0x80)
    rest >>= 7n
  }
  out.push(Number(rest))
  return Buffer.from(out)
}
