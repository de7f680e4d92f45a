package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	segmentio "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/compress"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// A codec under the names that both libraries have for it.
type codec struct {
	name      string
	segmentio segmentio.Compression
	library   compress.Codec
	franz     kgo.CompressionCodec
}

var codecs = []codec{
	{"none", 0, nil, kgo.NoCompression()},
	{"gzip", segmentio.Gzip, compress.Gzip.Codec(), kgo.GzipCompression()},
	{"snappy", segmentio.Snappy, compress.Snappy.Codec(), kgo.SnappyCompression()},
	{"lz4", segmentio.Lz4, compress.Lz4.Codec(), kgo.Lz4Compression()},
	{"zstd", segmentio.Zstd, compress.Zstd.Codec(), kgo.ZstdCompression()},
}

const exchanged = 120

func exchangeKey(index int) string { return fmt.Sprintf("k%04d", index) }

func exchangeValue(writer, codec string, index int) string {
	return fmt.Sprintf("%s-%s-%04d-%s", writer, codec, index, strings.Repeat("x", index*13%700))
}

func exchange(ctx context.Context, command, client string, topics []string) error {
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	for _, topic := range topics {
		for partition, codec := range codecs {
			var err error
			switch command + " " + client {
			case "write kafka-go":
				err = segmentioWrite(ctx, topic, partition, codec)
			case "write franz-go":
				err = franzWrite(ctx, topic, partition, codec)
			case "read kafka-go":
				err = segmentioRead(ctx, topic, partition, out)
			case "read franz-go":
				err = franzRead(ctx, topic, partition, out)
			default:
				err = errors.New("unknown client")
			}
			if err != nil {
				return fmt.Errorf("%s %s %s %d: %w", command, client, topic, partition, err)
			}
		}
	}
	return nil
}

// toPartition is a balancer that always takes the same partition.
func toPartition(partition int) segmentio.Balancer {
	return segmentio.BalancerFunc(func(segmentio.Message, ...int) int { return partition })
}

func segmentioWrite(ctx context.Context, topic string, partition int, codec codec) error {
	writer := &segmentio.Writer{
		Addr: segmentio.TCP(bootstrap), Topic: topic, Balancer: toPartition(partition), Compression: codec.segmentio,
		RequiredAcks: segmentio.RequireAll, BatchTimeout: 20 * time.Millisecond, BatchSize: 50,
	}
	var messages []segmentio.Message
	for index := range exchanged {
		messages = append(messages, segmentio.Message{
			Key: []byte(exchangeKey(index)), Value: []byte(exchangeValue("kafka-go", codec.name, index)),
			Headers: []segmentio.Header{{Key: "origin", Value: []byte("kafka-go")}},
		})
	}
	return errors.Join(writer.WriteMessages(ctx, messages...), writer.Close())
}

func segmentioRead(ctx context.Context, topic string, partition int, out *bufio.Writer) error {
	connection, err := segmentio.DialLeader(ctx, "tcp", bootstrap, topic, partition)
	if err != nil {
		return err
	}
	first, end, err := connection.ReadOffsets()
	connection.Close()
	if err != nil {
		return err
	}
	reader := segmentio.NewReader(segmentio.ReaderConfig{
		Brokers: []string{bootstrap}, Topic: topic, Partition: partition, MinBytes: 1, MaxBytes: 10 << 20, MaxWait: 100 * time.Millisecond,
	})
	defer reader.Close()
	if err := reader.SetOffset(first); err != nil {
		return err
	}
	for next := first; next < end; next++ {
		message, err := reader.ReadMessage(ctx)
		if err != nil {
			return err
		}
		header := message.Headers[0]
		fmt.Fprintf(out, "%s %d %d %s %s=%s %s\n", topic, partition, message.Offset, message.Key, header.Key, header.Value, message.Value)
	}
	return nil
}

func franzWrite(ctx context.Context, topic string, partition int, codec codec) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(bootstrap), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(codec.franz), kgo.ProducerLinger(20*time.Millisecond))
	if err != nil {
		return err
	}
	defer client.Close()
	var records []*kgo.Record
	for index := range exchanged {
		records = append(records, &kgo.Record{
			Topic: topic, Partition: int32(partition), Key: []byte(exchangeKey(index)), Value: []byte(exchangeValue("franz-go", codec.name, index)),
			Headers: []kgo.RecordHeader{{Key: "origin", Value: []byte("franz-go")}},
		})
	}
	for index, result := range client.ProduceSync(ctx, records...) {
		if result.Err != nil {
			return result.Err
		}
		if result.Record.Offset != int64(index) {
			return fmt.Errorf("record %d got offset %d", index, result.Record.Offset)
		}
	}
	return nil
}

// franzPartition consumes one partition from an offset to an end.
func franzPartition(ctx context.Context, topic string, partition int, from kgo.Offset, count int) ([]*kgo.Record, error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(bootstrap), kgo.FetchMaxWait(500*time.Millisecond),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {int32(partition): from}}))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	var records []*kgo.Record
	for len(records) < count {
		fetches := client.PollFetches(ctx)
		for _, failure := range fetches.Errors() {
			return records, fmt.Errorf("fetch of %s-%d: %w", failure.Topic, failure.Partition, failure.Err)
		}
		records = append(records, fetches.Records()...)
	}
	return records, nil
}

func franzRead(ctx context.Context, topic string, partition int, out *bufio.Writer) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(bootstrap))
	if err != nil {
		return err
	}
	defer client.Close()
	ends, err := kadm.NewClient(client).ListEndOffsets(ctx, topic)
	if err != nil {
		return err
	}
	end, _ := ends.Lookup(topic, int32(partition))
	if end.Err != nil {
		return end.Err
	}
	records, err := franzPartition(ctx, topic, partition, kgo.NewOffset().AtStart(), int(end.Offset))
	for _, record := range records {
		header := record.Headers[0]
		fmt.Fprintf(out, "%s %d %d %s %s=%s %s\n", topic, partition, record.Offset, record.Key, header.Key, header.Value, record.Value)
	}
	return err
}
