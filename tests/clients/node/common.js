// What the kafkajs scripts share: a client, the codecs that kafkajs leaves out, reading by partition.
'use strict'
const { CompressionCodecs, CompressionTypes, Kafka, logLevel } = require('kafkajs')

const codecs = [
  { name: 'none', type: CompressionTypes.None },
  { name: 'gzip', type: CompressionTypes.GZIP },
  { name: 'snappy', type: CompressionTypes.Snappy },
  { name: 'lz4', type: CompressionTypes.LZ4 },
  { name: 'zstd', type: CompressionTypes.ZSTD },
]

// lz4js leaves the flag for independent blocks out, and Kafka refuses frames without it. A frame of
// one block (at most 4 MiB, as here) is independent: set the flag, renew the header's checksum.
function lz4Compress(bytes) {
  const frame = Buffer.from(require('lz4js').compress(bytes))
  frame[4] |= 0x20
  frame[6] = (require('lz4js/xxh32.js').hash(0, frame, 4, 2) >> 8) & 0xff
  return frame
}

async function registerCodecs() {
  const lz4 = require('lz4js')
  const zstd = require('@bokuweb/zstd-wasm')
  await zstd.init()
  CompressionCodecs[CompressionTypes.Snappy] = require('kafkajs-snappy')
  CompressionCodecs[CompressionTypes.LZ4] = () => ({
    compress: async encoder => lz4Compress(encoder.buffer),
    decompress: async buffer => Buffer.from(lz4.decompress(buffer)),
  })
  CompressionCodecs[CompressionTypes.ZSTD] = () => ({
    compress: async encoder => Buffer.from(zstd.compress(encoder.buffer, 3)),
    decompress: async buffer => Buffer.from(zstd.decompress(buffer)),
  })
}

function client(settings = {}) {
  return new Kafka({
    clientId: 'node-test',
    brokers: [process.env.BOOTSTRAP],
    logLevel: logLevel.ERROR,
    retry: { retries: 3 },
    connectionTimeout: 5000,
    requestTimeout: 20000,
    ...settings,
  })
}

// A kafkajs cluster with readAll(topic, partition): Fetch from the first offset to the high watermark.
function cluster(kafka) {
  const symbol = Object.getOwnPropertySymbols(kafka).concat(Object.getOwnPropertySymbols(Object.getPrototypeOf(kafka)))
    .find(candidate => String(candidate).includes('createCluster'))
  const made = kafka[symbol]({ metadataMaxAge: 300000, allowAutoTopicCreation: false })
  made.readAll = async (topic, partition) => {
    const [found] = await made.fetchTopicsOffset([{ topic, fromBeginning: true, partitions: [{ partition }] }])
    let offset = BigInt(found.partitions[0].offset)
    const messages = []
    const leaders = made.findLeaderForPartitions(topic, [partition])
    const broker = await made.findBroker({ nodeId: Object.keys(leaders)[0] })
    for (;;) {
      const { responses } = await broker.fetch({
        maxWaitTime: 100,
        minBytes: 1,
        maxBytes: 10485760,
        isolationLevel: 0,
        topics: [{ topic, partitions: [{ partition, fetchOffset: String(offset), maxBytes: 1048576 }] }],
      })
      const data = responses[0].partitions[0]
      const fresh = data.messages.filter(message => BigInt(message.offset) >= offset)
      messages.push(...fresh)
      if (fresh.length > 0) offset = BigInt(fresh[fresh.length - 1].offset) + 1n
      if (offset >= BigInt(data.highWatermark)) return messages
      if (fresh.length === 0) throw new Error(`nothing at ${offset}, high watermark ${data.highWatermark}`)
    }
  }
  return made
}

module.exports = { client, cluster, registerCodecs, codecs }
