// A service of the shop in Node.js: publishes orders as CloudEvents, and reads the shop's events.
//
//   node service.mjs publish BROKERS COUNT           a line of JSON for each order: id, key, partition
//   node service.mjs read BROKERS TOPIC COUNT        a line of JSON for each event: type, id, key, partition
//
// Written against KafkaJS alone, as a team without evenkeel would write it.

import { randomUUID } from 'node:crypto';
import kafkajs from 'kafkajs';
import lz4 from 'lz4js';

const { CompressionCodecs, CompressionTypes, Kafka, Partitioners, logLevel } = kafkajs;

// The shop's services publish with lz4, which KafkaJS reads with a codec of its user's.
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: async (encoder) => Buffer.from(lz4.compress(encoder.buffer)),
  decompress: async (buffer) => Buffer.from(lz4.decompress(buffer)),
});

const [, , command, brokers, ...rest] = process.argv;
const kafka = new Kafka({ clientId: 'shop-node', brokers: brokers.split(','), logLevel: logLevel.ERROR });
const print = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

async function publish(count) {
  const producer = kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner, idempotent: true });
  await producer.connect();
  for (let number = 0; number < count; number += 1) {
    const orderId = `node-${number}`;
    const id = randomUUID();
    const data = {
      order_id: orderId,
      customer_id: 'customer-node',
      lines: [{ article: 'tea', quantity: 1, price_cents: 100 }],
      total_cents: 100,
      placed_at: new Date().toISOString(),
    };
    const headers = {
      ce_specversion: '1.0',
      ce_id: id,
      ce_source: '/shop/node',
      ce_type: 'shop.order-placed.v1',
      ce_time: new Date().toISOString(),
      'content-type': 'application/json',
    };
    const message = { key: orderId, value: JSON.stringify(data), headers };
    const [sent] = await producer.send({ topic: 'shop.orders', acks: -1, messages: [message] });
    print({ id, key: orderId, partition: sent.partition });
  }
  await producer.disconnect();
}

async function read(topic, count) {
  const consumer = kafka.consumer({ groupId: `node-${randomUUID()}` });
  await consumer.connect();
  await consumer.subscribe({ topics: [topic], fromBeginning: true });
  let seen = 0;
  await new Promise((resolve, reject) => {
    const eachMessage = async ({ partition, message }) => {
      const attribute = (name) => message.headers[name]?.toString();
      print({
        type: attribute('ce_type'),
        id: attribute('ce_id'),
        key: message.key?.toString(),
        partition,
        data: JSON.parse(message.value.toString()),
      });
      seen += 1;
      if (seen === count) resolve();
    };
    consumer.run({ eachMessage }).catch(reject);
  });
  await consumer.disconnect();
}

if (command === 'publish') await publish(Number(rest[0]));
else if (command === 'read') await read(rest[0], Number(rest[1]));
else throw new Error(`unknown command ${command}`);
