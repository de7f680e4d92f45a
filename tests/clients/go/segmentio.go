package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	segmentio "github.com/segmentio/kafka-go"
)

func segmentioTopic(ctx context.Context, name string, partitions int) (string, error) {
	topic := "kafka-go-" + name + "-" + runName
	connection, err := segmentio.DialContext(ctx, "tcp", bootstrap)
	if err != nil {
		return topic, err
	}
	defer connection.Close()
	if err := connection.CreateTopics(segmentio.TopicConfig{Topic: topic, NumPartitions: partitions, ReplicationFactor: 1}); err != nil {
		return topic, err
	}
	for partition := range partitions {
		if err := untilServed(ctx, topic, partition); err != nil {
			return topic, err
		}
	}
	return topic, nil
}

// untilServed asks for offsets until the leader answers: a Conn does not ask again by itself.
func untilServed(ctx context.Context, topic string, partition int) error {
	return eventually(ctx, func() error {
		connection, err := segmentio.DialLeader(ctx, "tcp", bootstrap, topic, partition)
		if err != nil {
			return err
		}
		defer connection.Close()
		_, err = connection.ReadLastOffset()
		return err
	})
}

// connCodec writes with one codec through a Conn and reads back through it.
func connCodec(ctx context.Context, topic string, partition int, codec codec) error {
	connection, err := segmentio.DialLeader(ctx, "tcp", bootstrap, topic, partition)
	if err != nil {
		return err
	}
	defer connection.Close()
	connection.SetDeadline(time.Now().Add(20 * time.Second))
	const count = 200
	for group := range 4 {
		var messages []segmentio.Message
		for index := group * 50; index < group*50+50; index++ {
			messages = append(messages, segmentio.Message{Key: []byte(exchangeKey(index)), Value: []byte(exchangeValue("conn", codec.name, index))})
		}
		if _, _, offset, _, err := connection.WriteCompressedMessagesAt(codec.library, messages...); err != nil || offset != int64(group*50) {
			return fmt.Errorf("group %d: offset %d, error %v", group, offset, err)
		}
	}
	first, last, err := connection.ReadOffsets()
	if err != nil || first != 0 || last != count {
		return fmt.Errorf("offsets %d to %d, error %v", first, last, err)
	}
	for _, from := range []int{0, 73} {
		if _, err := connection.Seek(int64(from), segmentio.SeekAbsolute); err != nil {
			return err
		}
		batch := connection.ReadBatchWith(segmentio.ReadBatchConfig{MinBytes: 1, MaxBytes: 1 << 20, MaxWait: time.Second})
		for index := from; index < count; index++ {
			message, err := batch.ReadMessage()
			if err != nil {
				return fmt.Errorf("record %d from %d: %w", index, from, err)
			}
			if message.Offset != int64(index) || string(message.Key) != exchangeKey(index) || string(message.Value) != exchangeValue("conn", codec.name, index) {
				return fmt.Errorf("record %d: offset %d, key %s, value %s", index, message.Offset, message.Key, message.Value)
			}
		}
		if err := batch.Close(); err != nil {
			return err
		}
	}
	return nil
}

// readerFollows checks that a Reader at the end gets what a Writer sends later.
func readerFollows(ctx context.Context, topic string) error {
	reader := segmentio.NewReader(segmentio.ReaderConfig{Brokers: []string{bootstrap}, Topic: topic, Partition: 0, MinBytes: 1, MaxBytes: 1 << 20, MaxWait: 300 * time.Millisecond})
	defer reader.Close()
	if err := reader.SetOffset(0); err != nil {
		return err
	}
	writer := &segmentio.Writer{Addr: segmentio.TCP(bootstrap), Topic: topic, Balancer: toPartition(0), BatchSize: 1, RequiredAcks: segmentio.RequireOne}
	defer writer.Close()
	for index := range 20 {
		value := fmt.Sprintf("tail-%d", index)
		if err := writer.WriteMessages(ctx, segmentio.Message{Value: []byte(value)}); err != nil {
			return err
		}
		message, err := reader.ReadMessage(ctx)
		if err != nil || message.Offset != int64(index) || string(message.Value) != value {
			return fmt.Errorf("offset %d value %s error %v", message.Offset, message.Value, err)
		}
	}
	return nil
}

func testSegmentio(ctx context.Context) {
	topic, err := segmentioTopic(ctx, "conn", len(codecs))
	check("kafka-go: CreateTopics", func() error { return err })
	check("kafka-go: ReadPartitions", func() error {
		connection, err := segmentio.DialContext(ctx, "tcp", bootstrap)
		if err != nil {
			return err
		}
		defer connection.Close()
		partitions, err := connection.ReadPartitions(topic)
		if err != nil || len(partitions) != len(codecs) {
			return fmt.Errorf("%d partitions, error %v", len(partitions), err)
		}
		controller, err := connection.Controller()
		if err != nil || controller.Port == 0 {
			return fmt.Errorf("controller %v, error %v", controller, err)
		}
		return nil
	})
	for partition, codec := range codecs {
		check("kafka-go: Conn writes and reads "+codec.name, func() error { return connCodec(ctx, topic, partition, codec) })
	}
	check("kafka-go: Reader follows Writer", func() error {
		tail, err := segmentioTopic(ctx, "tail", 1)
		return errors.Join(err, readerFollows(ctx, tail))
	})
	check("kafka-go: offsets by time", func() error { return segmentioTimes(ctx) })
	check("kafka-go: DeleteTopics", func() error {
		connection, err := segmentio.DialContext(ctx, "tcp", bootstrap)
		if err != nil {
			return err
		}
		defer connection.Close()
		return connection.DeleteTopics(topic)
	})
}

func segmentioTimes(ctx context.Context) error {
	topic, err := segmentioTopic(ctx, "times", 1)
	if err != nil {
		return err
	}
	connection, err := segmentio.DialLeader(ctx, "tcp", bootstrap, topic, 0)
	if err != nil {
		return err
	}
	defer connection.Close()
	base := time.Now().Add(-time.Hour).Truncate(time.Second)
	var messages []segmentio.Message
	for index := range 10 {
		messages = append(messages, segmentio.Message{Value: []byte("v"), Time: base.Add(time.Duration(index) * time.Second)})
	}
	if _, err := connection.WriteMessages(messages...); err != nil {
		return err
	}
	for index := range 10 {
		offset, err := connection.ReadOffset(base.Add(time.Duration(index)*time.Second - 400*time.Millisecond))
		if err != nil || offset != int64(index) {
			return fmt.Errorf("time of record %d: offset %d, error %v", index, offset, err)
		}
	}
	return nil
}
