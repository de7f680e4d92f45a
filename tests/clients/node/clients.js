// kafkajs (versions of the protocol from before KIP-896's cut) as producer and admin at BOOTSTRAP.
'use strict'
const assert = require('node:assert/strict')
const { isDeepStrictEqual } = require('node:util')
const { ConfigResourceTypes } = require('kafkajs')
const { client, cluster, registerCodecs, codecs } = require('./common')

const runName = `${Date.now()}-${process.pid}`
const kafka = client()
const admin = kafka.admin()
const reader = cluster(kafka)
let passed = 0
let failed = 0

async function check(name, body) {
  try {
    await body()
    passed++
    console.log(`ok    node: ${name}`)
  } catch (error) {
    failed++
    console.log(`FAIL  node: ${name}: ${error.stack}`)
  }
}

// Kafka answers an administrator before every broker has applied the change.
async function eventually(condition, what) {
  const deadline = Date.now() + 10000
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(what)
    await new Promise(resolve => setTimeout(resolve, 20))
  }
}

async function createTopic(name, numPartitions) {
  const topic = `node-${name}-${runName}`
  assert.equal(await admin.createTopics({ waitForLeaders: true, topics: [{ topic, numPartitions, replicationFactor: 1 }] }), true)
  return topic
}

function sample(label, count, base = 1700000000000) {
  return Array.from({ length: count }, (_, index) => ({
    key: `key-${index}`,
    value: `${label}-${index}-${'z'.repeat((index * 11) % 400)}`,
    headers: { index: String(index) },
    timestamp: String(base + index * 1000),
  }))
}

async function readBack(topic, partition, records, first = 0) {
  await reader.addTargetTopic(topic)
  const messages = await reader.readAll(topic, partition)
  assert.equal(messages.length, records.length)
  messages.forEach((message, index) => {
    assert.equal(message.offset, String(first + index))
    assert.equal(message.key.toString(), records[index].key)
    assert.equal(message.value.toString(), records[index].value)
    assert.equal(message.headers.index.toString(), records[index].headers.index)
    assert.equal(message.timestamp, records[index].timestamp)
  })
}

async function main() {
  await registerCodecs()
  await admin.connect()
  await reader.connect()
  let topic
  await check('createTopics', async () => {
    topic = await createTopic('main', codecs.length + 3)
    assert.equal(await admin.createTopics({ topics: [{ topic, numPartitions: 1 }] }), false)
    const described = await admin.fetchTopicMetadata({ topics: [topic] })
    assert.equal(described.topics[0].partitions.length, codecs.length + 3)
    assert.ok((await admin.listTopics()).includes(topic))
    const found = await admin.describeCluster()
    assert.ok(found.brokers.length >= 1 && found.clusterId)
  })
  for (const [partition, codec] of codecs.entries()) {
    await check(`produce ${codec.name}`, async () => {
      const producer = kafka.producer()
      await producer.connect()
      const records = sample(codec.name, 300)
      for (let from = 0; from < 300; from += 100) {
        const messages = records.slice(from, from + 100).map(record => ({ ...record, partition }))
        const [sent] = await producer.send({ topic, compression: codec.type, messages })
        assert.equal(sent.errorCode, 0)
        assert.equal(sent.baseOffset, String(from))
      }
      await producer.disconnect()
      await readBack(topic, partition, records)
    })
  }
  for (const [place, acks] of [0, 1, -1].entries()) {
    const partition = codecs.length + place
    await check(`produce acks ${acks}${acks === -1 ? ' idempotent' : ''}`, async () => {
      const producer = kafka.producer({ idempotent: acks === -1 })
      await producer.connect()
      const records = sample('acks', 50)
      await producer.send({ topic, acks, messages: records.map(record => ({ ...record, partition })) })
      if (acks === 0) {
        // No answer to wait for: a second produce of the same connection, with an answer, follows the first.
        const last = { ...sample('acks', 51)[50] }
        records.push(last)
        const [sent] = await producer.send({ topic, acks: 1, messages: [{ ...last, partition }] })
        assert.equal(sent.baseOffset, '50')
      }
      await producer.disconnect()
      await readBack(topic, partition, records)
    })
  }
  await check('fetchTopicOffsets', async () => {
    const offsets = await admin.fetchTopicOffsets(topic)
    const first = offsets.find(entry => entry.partition === 0)
    assert.deepEqual([first.low, first.high, first.offset], ['0', '300', '300'])
    const byTime = await admin.fetchTopicOffsetsByTimestamp(topic, 1700000000000 + 42000)
    assert.equal(byTime.find(entry => entry.partition === 0).offset, '42')
  })
  await check('describeConfigs and alterConfigs', async () => {
    const resource = { type: ConfigResourceTypes.TOPIC, name: topic }
    await admin.alterConfigs({ validateOnly: false, resources: [{ ...resource, configEntries: [{ name: 'retention.ms', value: '7777777' }] }] })
    const question = { includeSynonyms: false, resources: [{ ...resource, configNames: ['retention.ms', 'cleanup.policy'] }] }
    const changed = async () => {
      const { resources } = await admin.describeConfigs(question)
      const values = Object.fromEntries(resources[0].configEntries.map(entry => [entry.configName, entry.configValue]))
      return isDeepStrictEqual(values, { 'retention.ms': '7777777', 'cleanup.policy': 'delete' })
    }
    await eventually(changed, 'retention.ms is not 7777777')
  })
  await check('deleteTopicRecords', async () => {
    await admin.deleteTopicRecords({ topic, partitions: [{ partition: 1, offset: '120' }] })
    const offsets = await admin.fetchTopicOffsets(topic)
    assert.equal(offsets.find(entry => entry.partition === 1).low, '120')
    await readBack(topic, 1, sample('gzip', 300).slice(120), 120)
  })
  await check('createPartitions', async () => {
    await admin.createPartitions({ topicPartitions: [{ topic, count: 12 }] })
    const partitions = async () => (await admin.fetchTopicMetadata({ topics: [topic] })).topics[0].partitions
    await eventually(async () => (await partitions()).length === 12, 'not 12 partitions')
  })
  await check('deleteTopics', async () => {
    await admin.deleteTopics({ topics: [topic], timeout: 10000 })
    await eventually(async () => !(await admin.listTopics()).includes(topic), 'deleted topic is still listed')
  })
  await reader.disconnect()
  await admin.disconnect()
}

main()
  .catch(error => {
    failed++
    console.log(`FAIL  node: ${error.stack}`)
  })
  .finally(() => {
    console.log(`${passed} passed, ${failed} failed`)
    process.exit(failed > 0 || passed === 0 ? 1 : 0)
  })
