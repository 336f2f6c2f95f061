// The checksums of the two log formats. They are not interchangeable: W&B's is the plain CRC-32, TensorBoard's a masked CRC-32C.

/** IEEE CRC-32, reflected. node:zlib has one from 20.15 on, but a table serves both. */
export const crc32 = checksum(0xedb88320)

/** Castagnoli's CRC-32C, reflected. */
export const crc32c = checksum(0x82f63b78)

/** CRC-32C as TFRecord files hold it: rotated by 15 bits and moved, so that a checksum of checksums stays sound. */
export function maskedCrc32c(data: Uint8Array): number {
  const crc = crc32c(data)
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0
}

function checksum(polynomial: number): (data: Uint8Array) => number {
  const table = Uint32Array.from({ length: 256 }, (_, byte) => {
    let crc = byte
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ polynomial : crc >>> 1
    return crc >>> 0
  })
  return (data) => {
    let crc = 0xffffffff
    for (const byte of data) crc = table[(crc ^ byte) & 0xff]! ^ (crc >>> 8)
    return (crc ^ 0xffffffff) >>> 0
  }
}
