// Writes and reads the records of exchange.sh with kafkajs. Its public consumer wants a group, so
// records are read through its own (internal) broker class: the same Fetch and the same decoder.
'use strict'
const { client, cluster, registerCodecs, codecs } = require('./common')

const RECORDS = 120

async function write(topic) {
  const kafka = client()
  const producer = kafka.producer()
  await producer.connect()
  for (const [partition, codec] of codecs.entries()) {
    const messages = []
    for (let index = 0; index < RECORDS; index++) {
      const number = String(index).padStart(4, '0')
      messages.push({
        partition,
        key: `k${number}`,
        value: `node-${codec.name}-${number}-${'x'.repeat((index * 13) % 700)}`,
        headers: { origin: 'node' },
      })
    }
    const [sent] = await producer.send({ topic, compression: codec.type, messages })
    if (sent.errorCode !== 0 || sent.baseOffset !== '0') throw new Error(JSON.stringify(sent))
  }
  await producer.disconnect()
}

async function read(topics) {
  const reader = cluster(client())
  await reader.connect()
  for (const topic of topics) {
    await reader.addTargetTopic(topic)
    for (let partition = 0; partition < codecs.length; partition++) {
      for (const message of await reader.readAll(topic, partition)) {
        const origin = message.headers.origin.toString()
        process.stdout.write(`${topic} ${partition} ${message.offset} ${message.key} origin=${origin} ${message.value}\n`)
      }
    }
  }
  await reader.disconnect()
}

async function main() {
  await registerCodecs()
  const [command, ...topics] = process.argv.slice(2)
  await (command === 'write' ? write(topics[0]) : read(topics))
}
main().catch(error => {
  console.error(error)
  process.exit(1)
})
