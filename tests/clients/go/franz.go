package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// franzRoundTrip produces with one codec and setting of acks, and consumes from the start and from the middle.
func franzRoundTrip(ctx context.Context, topic string, partition int, name string, count int, options ...kgo.Opt) error {
	client, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(bootstrap), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(5 * time.Millisecond)}, options...)...)
	if err != nil {
		return err
	}
	defer client.Close()
	var records []*kgo.Record
	for index := range count {
		records = append(records, &kgo.Record{Topic: topic, Partition: int32(partition), Key: []byte(exchangeKey(index)), Value: []byte(exchangeValue("franz", name, index))})
	}
	if err := client.ProduceSync(ctx, records...).FirstErr(); err != nil {
		return err
	}
	for _, from := range []int{0, count / 3} {
		back, err := franzPartition(ctx, topic, partition, kgo.NewOffset().At(int64(from)), count-from)
		if err != nil {
			return err
		}
		for place, record := range back {
			index := from + place
			if record.Offset != int64(index) || string(record.Key) != exchangeKey(index) || string(record.Value) != exchangeValue("franz", name, index) {
				return fmt.Errorf("record %d: offset %d, key %s, value %s", index, record.Offset, record.Key, record.Value)
			}
		}
	}
	return nil
}

func testFranz(ctx context.Context) {
	client, err := kgo.NewClient(kgo.SeedBrokers(bootstrap))
	check("franz-go: client", func() error { return err })
	if err != nil {
		return
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	topic := "franz-" + runName
	check("franz-go: CreateTopic", func() error {
		created, err := admin.CreateTopic(ctx, int32(len(codecs)+3), 1, map[string]*string{"retention.ms": kadm.StringPtr("3600000")}, topic)
		if err != nil {
			return err
		}
		return created.Err
	})
	check("franz-go: CreateTopic twice", func() error {
		created, err := admin.CreateTopic(ctx, 1, 1, nil, topic)
		if !errors.Is(err, kerr.TopicAlreadyExists) && !errors.Is(created.Err, kerr.TopicAlreadyExists) {
			return fmt.Errorf("got %v, %v", err, created.Err)
		}
		return nil
	})
	for partition, codec := range codecs {
		check("franz-go: idempotent round trip "+codec.name, func() error {
			return franzRoundTrip(ctx, topic, partition, codec.name, 3000, kgo.ProducerBatchCompression(codec.franz))
		})
	}
	for place, acks := range []kgo.Acks{kgo.NoAck(), kgo.LeaderAck(), kgo.AllISRAcks()} {
		check(fmt.Sprintf("franz-go: round trip acks %d", place), func() error {
			return franzRoundTrip(ctx, topic, len(codecs)+place, "acks", 500, kgo.RequiredAcks(acks), kgo.DisableIdempotentWrite())
		})
	}
	testFranzAdmin(ctx, admin, topic)
}

func testFranzAdmin(ctx context.Context, admin *kadm.Client, topic string) {
	check("franz-go: offsets", func() error {
		ends, err := admin.ListEndOffsets(ctx, topic)
		if err != nil {
			return err
		}
		end, _ := ends.Lookup(topic, 0)
		if end.Offset != 3000 {
			return fmt.Errorf("end %d", end.Offset)
		}
		starts, err := admin.ListStartOffsets(ctx, topic)
		start, _ := starts.Lookup(topic, 0)
		if err != nil || start.Offset != 0 {
			return fmt.Errorf("start %d, error %v", start.Offset, err)
		}
		return nil
	})
	check("franz-go: topic ids and leaders", func() error {
		topics, err := admin.ListTopics(ctx, topic)
		if err != nil {
			return err
		}
		detail := topics[topic]
		if detail.Err != nil || detail.ID == (kadm.TopicID{}) || len(detail.Partitions) != len(codecs)+3 {
			return fmt.Errorf("got %+v", detail)
		}
		for _, partition := range detail.Partitions {
			if partition.Err != nil || partition.Leader < 0 || len(partition.ISR) != 1 {
				return fmt.Errorf("got %+v", partition)
			}
		}
		return nil
	})
	check("franz-go: configs", func() error {
		changed, err := admin.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "max.message.bytes", Value: kadm.StringPtr("65536")}}, topic)
		if err != nil || changed[0].Err != nil {
			return fmt.Errorf("alter: %v %v", err, changed)
		}
		return eventually(ctx, func() error {
			described, err := admin.DescribeTopicConfigs(ctx, topic)
			if err != nil {
				return err
			}
			got := map[string]string{}
			for _, config := range described[0].Configs {
				got[config.Key] = config.MaybeValue()
			}
			if got["max.message.bytes"] != "65536" || got["retention.ms"] != "3600000" || got["cleanup.policy"] != "delete" {
				return fmt.Errorf("got %v", got)
			}
			return nil
		})
	})
	check("franz-go: DeleteRecords", func() error {
		offsets := kadm.Offsets{}
		offsets.AddOffset(topic, 0, 1000, -1)
		deleted, err := admin.DeleteRecords(ctx, offsets)
		if err != nil {
			return err
		}
		if one := deleted[topic][0]; one.Err != nil || one.LowWatermark != 1000 {
			return fmt.Errorf("got %+v", one)
		}
		records, err := franzPartition(ctx, topic, 0, kgo.NewOffset().AtStart(), 2000)
		if err != nil || records[0].Offset != 1000 || records[len(records)-1].Offset != 2999 {
			return fmt.Errorf("%d records, error %v", len(records), err)
		}
		return nil
	})
	check("franz-go: CreatePartitions and DeleteTopic", func() error {
		more, err := admin.UpdatePartitions(ctx, len(codecs)+5, topic)
		if err != nil || more[topic].Err != nil {
			return fmt.Errorf("%v %v", err, more)
		}
		grown := func() error {
			topics, err := admin.ListTopics(ctx, topic)
			if err != nil || len(topics[topic].Partitions) != len(codecs)+5 {
				return fmt.Errorf("%d partitions, error %v", len(topics[topic].Partitions), err)
			}
			return nil
		}
		if err := eventually(ctx, grown); err != nil {
			return err
		}
		deleted, err := admin.DeleteTopic(ctx, topic)
		return errors.Join(err, deleted.Err)
	})
}
