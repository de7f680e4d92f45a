// Groups and transactions of kafkajs (versions of the protocol from before KIP-896's cut) at BOOTSTRAP.
'use strict'
const assert = require('node:assert/strict')
const { logLevel } = require('kafkajs')
const { client } = require('./common')

const WAIT_MS = 30000
const runName = `${Date.now()}-${process.pid}`
// Rebalances, aborts and fencing are what is tested here; kafkajs tells each as an error.
const kafka = client({ logLevel: logLevel.NOTHING })
const admin = kafka.admin()
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

async function until(what, condition) {
  const deadline = Date.now() + WAIT_MS
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`never: ${what}`)
    await new Promise(resolve => setTimeout(resolve, 20))
  }
}

async function createTopic(name, numPartitions) {
  const topic = `node-groups-${name}-${runName}`
  await admin.createTopics({ waitForLeaders: true, topics: [{ topic, numPartitions, replicationFactor: 1 }] })
  return topic
}

const numbers = (first, last) => Array.from({ length: last - first }, (_, index) => String(first + index).padStart(5, '0'))

async function produce(topic, values, partitions) {
  const producer = kafka.producer({ idempotent: true })
  await producer.connect()
  await producer.send({ topic, messages: values.map((value, index) => ({ value, partition: index % partitions })) })
  await producer.disconnect()
}

// A member of a group, what it has and what it has read.
async function join(groupId, topic, { readUncommitted = false, ...run } = {}) {
  const consumer = kafka.consumer({ groupId, readUncommitted, sessionTimeout: 6000, heartbeatInterval: 300, maxWaitTimeInMs: 200 })
  const member = { consumer, owned: [], values: [], rebalances: 0 }
  consumer.on(consumer.events.GROUP_JOIN, event => {
    member.owned = event.payload.memberAssignment[topic] ?? []
  })
  consumer.on(consumer.events.REBALANCING, () => member.rebalances++)
  await consumer.connect()
  await consumer.subscribe({ topics: [topic], fromBeginning: true })
  const eachMessage = async ({ message }) => void member.values.push(message.value.toString())
  await consumer.run({ autoCommitInterval: 100, ...(run.eachBatch ? run : { eachMessage }) })
  return member
}

async function groupResumes() {
  const topic = await createTopic('resume', 4)
  for (const [first, last] of [[0, 1000], [1000, 1500]]) {
    await produce(topic, numbers(first, last), 4)
    const member = await join(topic, topic)
    await until('everything is read', () => member.values.length >= last - first)
    await member.consumer.disconnect()
    assert.deepEqual(member.values.sort(), numbers(first, last))
  }
  const [committed] = await admin.fetchOffsets({ groupId: topic, topics: [topic] })
  assert.deepEqual(committed.partitions.map(({ offset }) => offset), ['375', '375', '375', '375'])
}

async function groupRebalances() {
  const topic = await createTopic('share', 6)
  const first = await join(topic, topic)
  await until('one has all', () => first.owned.length === 6)
  const second = await join(topic, topic)
  await until('both have half', () => first.owned.length === 3 && second.owned.length === 3)
  assert.deepEqual([...first.owned, ...second.owned].sort(), [0, 1, 2, 3, 4, 5])
  assert.ok(first.rebalances > 0)
  const { groups } = await admin.describeGroups([topic])
  assert.equal(groups[0].state, 'Stable')
  assert.equal(groups[0].members.length, 2)
  await first.consumer.disconnect()
  await until('the other one has all', () => second.owned.length === 6)
  await second.consumer.disconnect()
}

async function operatorsMoveOffsets() {
  const topic = await createTopic('admin', 2)
  await produce(topic, numbers(0, 100), 2)
  const member = await join(topic, topic)
  await until('everything is read', () => member.values.length >= 100)
  await member.consumer.disconnect()
  await admin.setOffsets({ groupId: topic, topic, partitions: [{ partition: 0, offset: '10' }] })
  const [{ partitions }] = await admin.fetchOffsets({ groupId: topic, topics: [topic] })
  assert.deepEqual(partitions.sort((a, b) => a.partition - b.partition).map(({ offset }) => offset), ['10', '50'])
  assert.ok((await admin.listGroups()).groups.some(({ groupId }) => groupId === topic))
  await admin.deleteGroups([topic])
  assert.ok(!(await admin.listGroups()).groups.some(({ groupId }) => groupId === topic))
}

// Copies each batch in a transaction; every third one is aborted, and its batch comes again.
async function copier(source, target, number) {
  const producer = kafka.producer({ transactionalId: `${source}-${number}`, idempotent: true, maxInFlightRequests: 1 })
  await producer.connect()
  let turn = 0
  const eachBatch = async ({ batch, isRunning, isStale }) => {
    if (!isRunning() || isStale()) return
    const transaction = await producer.transaction()
    const messages = batch.messages.map(({ value }) => ({ value, partition: 0 }))
    await transaction.send({ topic: target, messages })
    const offset = String(BigInt(batch.lastOffset()) + 1n)
    const topics = [{ topic: source, partitions: [{ partition: batch.partition, offset }] }]
    await transaction.sendOffsets({ consumerGroupId: `copy-${source}`, topics })
    if (++turn % 3 === 0) {
      await transaction.abort()
      throw Object.assign(new Error('aborted on purpose'), { retriable: true })
    }
    await transaction.commit()
  }
  const member = await join(`copy-${source}`, source, { eachBatch, autoCommit: false, eachBatchAutoResolve: true })
  return { producer, member }
}

async function copiedExactlyOnce() {
  const source = await createTopic('source', 1)
  const target = await createTopic('target', 1)
  const { producer, member } = await copier(source, target, 0)
  for (let first = 0; first < 1000; first += 100) {
    await produce(source, numbers(first, first + 100), 1)
    await until('the batch is copied', async () => {
      const [{ partitions }] = await admin.fetchOffsets({ groupId: `copy-${source}`, topics: [source] })
      return partitions[0].offset === String(first + 100)
    })
  }
  await member.consumer.disconnect()
  await producer.disconnect()
  const reader = await join(`read-${target}`, target)
  await until('everything is read', () => reader.values.length >= 1000)
  await reader.consumer.disconnect()
  assert.deepEqual(reader.values, numbers(0, 1000))
  const all = await join(`all-${target}`, target, { readUncommitted: true })
  await until('aborted records are read', () => all.values.length > 1000)
  await all.consumer.disconnect()
}

async function abortedAreNotSeen() {
  const topic = await createTopic('isolation', 1)
  const producer = kafka.producer({ transactionalId: topic, idempotent: true, maxInFlightRequests: 1 })
  await producer.connect()
  const expected = []
  for (let turn = 0; turn < 6; turn++) {
    const transaction = await producer.transaction()
    const values = numbers(turn * 10, turn * 10 + 10)
    await transaction.send({ topic, messages: values.map(value => ({ value })) })
    if (turn % 2) {
      await transaction.abort()
    } else {
      await transaction.commit()
      expected.push(...values)
    }
  }
  await producer.disconnect()
  const reader = await join(`read-${topic}`, topic)
  await until('everything is read', () => reader.values.length >= expected.length)
  await reader.consumer.disconnect()
  assert.deepEqual(reader.values, expected)
}

async function secondProducerFences() {
  const topic = await createTopic('fence', 1)
  const start = async () => {
    const producer = kafka.producer({ transactionalId: topic, idempotent: true, maxInFlightRequests: 1, retry: { retries: 5 } })
    await producer.connect()
    const transaction = await producer.transaction()
    await transaction.send({ topic, messages: [{ value: 'value' }] })
    return { producer, transaction }
  }
  const first = await start()
  const second = await start()
  await second.transaction.commit()
  await assert.rejects(first.transaction.commit(), /epoch|fence|newer producer/i)
  await first.producer.disconnect()
  await second.producer.disconnect()
}

async function main() {
  await admin.connect()
  await check('a group goes on where it committed', groupResumes)
  await check('members share the partitions and take over', groupRebalances)
  await check('operators see groups and move offsets', operatorsMoveOffsets)
  await check('readers of committed records see no aborted ones', abortedAreNotSeen)
  await check('what is copied in transactions is there exactly once', copiedExactlyOnce)
  await check('a second producer fences the first', secondProducerFences)
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
