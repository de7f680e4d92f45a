package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// A member of a group that polls in the background and keeps count of what it has and gets.
type member struct {
	client  *kgo.Client
	lock    sync.Mutex
	owned   map[int32]bool
	revoked int
	values  []string
	errs    []error
	done    chan struct{}
}

func groupOptions(group, topic string, more ...kgo.Opt) []kgo.Opt {
	return append([]kgo.Opt{
		kgo.SeedBrokers(bootstrap), kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.FetchMaxWait(200 * time.Millisecond),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.SessionTimeout(6 * time.Second), kgo.HeartbeatInterval(300 * time.Millisecond),
	}, more...)
}

func join(ctx context.Context, group, topic string, more ...kgo.Opt) (*member, error) {
	one := &member{owned: map[int32]bool{}, done: make(chan struct{})}
	change := func(owned bool) func(context.Context, *kgo.Client, map[string][]int32) {
		return func(_ context.Context, _ *kgo.Client, changed map[string][]int32) {
			one.lock.Lock()
			defer one.lock.Unlock()
			for _, partition := range changed[topic] {
				if owned {
					one.owned[partition] = true
				} else {
					delete(one.owned, partition)
					one.revoked++
				}
			}
		}
	}
	options := groupOptions(group, topic, append([]kgo.Opt{
		kgo.OnPartitionsAssigned(change(true)), kgo.OnPartitionsRevoked(change(false)), kgo.OnPartitionsLost(change(false)),
		kgo.AutoCommitInterval(100 * time.Millisecond),
	}, more...)...)
	client, err := kgo.NewClient(options...)
	if err != nil {
		return nil, err
	}
	one.client = client
	go one.poll(ctx)
	return one, nil
}

func (one *member) poll(ctx context.Context) {
	defer close(one.done)
	for {
		fetches := one.client.PollFetches(ctx)
		if fetches.IsClientClosed() || ctx.Err() != nil {
			return
		}
		one.lock.Lock()
		for _, failure := range fetches.Errors() {
			one.errs = append(one.errs, failure.Err)
		}
		fetches.EachRecord(func(record *kgo.Record) { one.values = append(one.values, string(record.Value)) })
		one.lock.Unlock()
	}
}

// leave closes the client; what it has read is committed, but for a static member, which stays.
func (one *member) leave(ctx context.Context) error {
	err := one.client.CommitUncommittedOffsets(ctx)
	one.client.Close()
	<-one.done
	return errors.Join(append(one.errs, err)...)
}

func (one *member) has(count int) bool {
	one.lock.Lock()
	defer one.lock.Unlock()
	return len(one.owned) == count
}

func (one *member) partitions() []int32 {
	one.lock.Lock()
	defer one.lock.Unlock()
	var partitions []int32
	for partition := range one.owned {
		partitions = append(partitions, partition)
	}
	slices.Sort(partitions)
	return partitions
}

func (one *member) read() []string {
	one.lock.Lock()
	defer one.lock.Unlock()
	return slices.Clone(one.values)
}

// until asks again until the condition holds.
func until(ctx context.Context, what string, condition func() bool) error {
	deadline := time.Now().Add(30 * time.Second)
	for !condition() {
		if time.Now().After(deadline) || ctx.Err() != nil {
			return fmt.Errorf("never: %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
	return nil
}

func groupTopic(ctx context.Context, admin *kadm.Client, name string, partitions int32) (string, error) {
	topic := "franz-groups-" + name + "-" + runName
	created, err := admin.CreateTopic(ctx, partitions, 1, nil, topic)
	return topic, errors.Join(err, created.Err)
}

func numbers(first, last int) []string {
	var all []string
	for number := first; number < last; number++ {
		all = append(all, fmt.Sprintf("%05d", number))
	}
	return all
}

func produceNumbers(ctx context.Context, client *kgo.Client, topic string, first, last int, partitions int) error {
	var records []*kgo.Record
	for place, value := range numbers(first, last) {
		records = append(records, &kgo.Record{Topic: topic, Partition: int32(place % partitions), Value: []byte(value)})
	}
	return client.ProduceSync(ctx, records...).FirstErr()
}

// same compares values without their order.
func same(expected, got []string) error {
	slices.Sort(got)
	if !slices.Equal(expected, got) {
		return fmt.Errorf("%d records, %d different ones, expected %d", len(got), len(slices.Compact(slices.Clone(got))), len(expected))
	}
	return nil
}

func groupResumes(ctx context.Context, admin *kadm.Client, client *kgo.Client, name string, options ...kgo.Opt) error {
	topic, err := groupTopic(ctx, admin, "resume-"+name, 4)
	if err != nil {
		return err
	}
	group := topic
	for _, span := range [][2]int{{0, 1000}, {1000, 1500}} {
		if err := produceNumbers(ctx, client, topic, span[0], span[1], 4); err != nil {
			return err
		}
		one, err := join(ctx, group, topic, options...)
		if err != nil {
			return err
		}
		err = until(ctx, "everything is read", func() bool { return len(one.read()) >= span[1]-span[0] })
		if err := errors.Join(err, one.leave(ctx), same(numbers(span[0], span[1]), one.read())); err != nil {
			return err
		}
	}
	offsets, err := admin.FetchOffsets(ctx, group)
	if err != nil {
		return err
	}
	if at, _ := offsets.Lookup(topic, 0); at.At != 375 {
		return fmt.Errorf("committed %d", at.At)
	}
	return nil
}

func groupRebalances(ctx context.Context, admin *kadm.Client, name string, revoked int, options ...kgo.Opt) error {
	topic, err := groupTopic(ctx, admin, "share-"+name, 6)
	if err != nil {
		return err
	}
	first, err := join(ctx, topic, topic, options...)
	if err != nil {
		return err
	}
	if err := until(ctx, "one has all", func() bool { return first.has(6) }); err != nil {
		return err
	}
	second, err := join(ctx, topic, topic, options...)
	if err != nil {
		return err
	}
	if err := until(ctx, "both have half", func() bool { return first.has(3) && second.has(3) }); err != nil {
		return err
	}
	owned := append(first.partitions(), second.partitions()...)
	slices.Sort(owned)
	if !slices.Equal(owned, []int32{0, 1, 2, 3, 4, 5}) || first.revoked != revoked {
		return fmt.Errorf("owned %v, %d revoked", owned, first.revoked)
	}
	if err := first.leave(ctx); err != nil {
		return err
	}
	err = until(ctx, "the other one has all", func() bool { return second.has(6) })
	return errors.Join(err, second.leave(ctx))
}

func groupStatic(ctx context.Context, admin *kadm.Client, name string, options ...kgo.Opt) error {
	topic, err := groupTopic(ctx, admin, "static-"+name, 4)
	if err != nil {
		return err
	}
	start := func(instance string) (*member, error) {
		return join(ctx, topic, topic, append([]kgo.Opt{kgo.InstanceID(instance)}, options...)...)
	}
	one, err := start("one")
	if err != nil {
		return err
	}
	two, err := start("two")
	if err != nil {
		return err
	}
	if err := until(ctx, "both have half", func() bool { return one.has(2) && two.has(2) }); err != nil {
		return err
	}
	before, revoked := one.partitions(), two.revoked
	if err := one.leave(ctx); err != nil {
		return err
	}
	if one, err = start("one"); err != nil {
		return err
	}
	if err := until(ctx, "it is back", func() bool { return one.has(2) }); err != nil {
		return err
	}
	if !slices.Equal(before, one.partitions()) || two.revoked != revoked {
		return fmt.Errorf("it had %v, has %v; the other one lost %d", before, one.partitions(), two.revoked-revoked)
	}
	return errors.Join(one.leave(ctx), two.leave(ctx))
}

// copyCommitted copies with transactions of which every third is aborted; ends after so many records.
func copyCommitted(ctx context.Context, source, target, id string, counted *counter) error {
	session, err := kgo.NewGroupTransactSession(groupOptions("copy-"+source, source, kgo.TransactionalID(id),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.RequireStableFetchOffsets())...)
	if err != nil {
		return err
	}
	defer session.Close()
	for turn := 1; !counted.full(); turn++ {
		short, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		fetches := session.PollRecords(short, 50)
		cancel()
		if fetches.NumRecords() == 0 {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			continue
		}
		if err := session.Begin(); err != nil {
			return err
		}
		fetches.EachRecord(func(record *kgo.Record) {
			session.Produce(ctx, &kgo.Record{Topic: target, Value: record.Value}, func(_ *kgo.Record, err error) {
				if err != nil && !errors.Is(err, kgo.ErrAborting) {
					counted.fail(err)
				}
			})
		})
		committed, err := session.End(ctx, kgo.TransactionEndTry(turn%3 != 0))
		if err != nil {
			return err
		}
		if committed {
			counted.add(fetches.NumRecords())
		}
	}
	return nil
}

type counter struct {
	lock   sync.Mutex
	count  int
	wanted int
	errs   []error
}

func (counted *counter) add(count int) {
	counted.lock.Lock()
	counted.count += count
	counted.lock.Unlock()
}

func (counted *counter) fail(err error) {
	counted.lock.Lock()
	counted.errs = append(counted.errs, err)
	counted.lock.Unlock()
}

func (counted *counter) full() bool {
	counted.lock.Lock()
	defer counted.lock.Unlock()
	return counted.count >= counted.wanted
}

// groupTransactions lets two sessions share a copy: the second one makes the first rebalance.
func groupTransactions(ctx context.Context, admin *kadm.Client, client *kgo.Client) error {
	source, err := groupTopic(ctx, admin, "source", 4)
	if err != nil {
		return err
	}
	target, err := groupTopic(ctx, admin, "target", 1)
	if err != nil {
		return err
	}
	counted := &counter{wanted: 2000}
	results := make(chan error, 2)
	for number := range 2 {
		go func() { results <- copyCommitted(ctx, source, target, fmt.Sprintf("%s-%d", source, number), counted) }()
		if err := produceNumbers(ctx, client, source, number*1000, number*1000+1000, 4); err != nil {
			return err
		}
	}
	if err := errors.Join(append(counted.errs, <-results, <-results)...); err != nil {
		return err
	}
	reader, err := join(ctx, "read-"+source, target, kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	if err != nil {
		return err
	}
	ends, err := admin.ListEndOffsets(ctx, target)
	if err != nil {
		return err
	}
	stable, err := admin.ListCommittedOffsets(ctx, target)
	if err != nil {
		return err
	}
	end, _ := ends.Lookup(target, 0)
	if last, _ := stable.Lookup(target, 0); last.Offset != end.Offset {
		return fmt.Errorf("a transaction is open: last stable offset %d, end %d", last.Offset, end.Offset)
	}
	err = until(ctx, "everything is read", func() bool { return len(reader.read()) >= counted.wanted })
	return errors.Join(err, reader.leave(ctx), same(numbers(0, 2000), reader.read()))
}

func fencedProducer(ctx context.Context, admin *kadm.Client) error {
	topic, err := groupTopic(ctx, admin, "fence", 1)
	if err != nil {
		return err
	}
	start := func() (*kgo.Client, error) {
		client, err := kgo.NewClient(kgo.SeedBrokers(bootstrap), kgo.TransactionalID(topic), kgo.DefaultProduceTopic(topic))
		if err != nil {
			return nil, err
		}
		return client, errors.Join(client.BeginTransaction(), client.ProduceSync(ctx, &kgo.Record{Value: []byte("value")}).FirstErr())
	}
	first, err := start()
	if err != nil {
		return err
	}
	defer first.Close()
	second, err := start()
	if err != nil {
		return err
	}
	defer second.Close()
	if err := second.EndTransaction(ctx, kgo.TryCommit); err != nil {
		return err
	}
	err = first.EndTransaction(ctx, kgo.TryCommit)
	if !errors.Is(err, kerr.InvalidProducerEpoch) && !errors.Is(err, kerr.ProducerFenced) {
		return fmt.Errorf("the first one is fenced, not: %v", err)
	}
	return nil
}

func testGroups(ctx context.Context) {
	client, err := kgo.NewClient(kgo.SeedBrokers(bootstrap), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	check("franz-go: client", func() error { return err })
	if err != nil {
		return
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	protocols := []struct {
		name    string
		revoked int
		options []kgo.Opt
	}{
		{"eager", 6, []kgo.Opt{kgo.Balancers(kgo.RangeBalancer())}},
		{"cooperative", 3, []kgo.Opt{kgo.Balancers(kgo.CooperativeStickyBalancer())}},
		{"consumer", 3, []kgo.Opt{kgo.Balancers(kgo.CooperativeStickyBalancer()), kgo.ServerSideBalancer()}},
	}
	for _, protocol := range protocols {
		check("franz-go: a group goes on where it committed, "+protocol.name, func() error {
			return groupResumes(ctx, admin, client, protocol.name, protocol.options...)
		})
		check("franz-go: members share the partitions and take over, "+protocol.name, func() error {
			return groupRebalances(ctx, admin, protocol.name, protocol.revoked, protocol.options...)
		})
		if protocol.name == "consumer" {
			// As it closes, franz-go sends the epoch of a static member that will be back without the
			// instance id. That is refused, as in Kafka, and its place is taken until its session ends.
			continue
		}
		check("franz-go: a static member comes back, "+protocol.name, func() error {
			return groupStatic(ctx, admin, protocol.name, protocol.options...)
		})
	}
	check("franz-go: what is copied in transactions is there exactly once", func() error { return groupTransactions(ctx, admin, client) })
	check("franz-go: a second producer fences the first", func() error { return fencedProducer(ctx, admin) })
}

// copyUntilKilled is the copier of kills.sh: a line for each transaction that is committed, until it is
// killed or cannot go on.
func copyUntilKilled(protocol, name, number string) error {
	ctx := context.Background()
	if protocol != "classic" {
		return fmt.Errorf("franz-go is tried with classic groups only, not %s", protocol)
	}
	session, err := kgo.NewGroupTransactSession(groupOptions(name, name+"-in", kgo.TransactionalID(name+"-"+number),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.RequireStableFetchOffsets(), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.SessionTimeout(time.Second), kgo.HeartbeatInterval(200*time.Millisecond))...)
	if err != nil {
		return err
	}
	defer session.Close()
	for {
		short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		fetches := session.PollRecords(short, 50)
		cancel()
		if fetches.NumRecords() == 0 {
			continue
		}
		if err := session.Begin(); err != nil {
			return err
		}
		var failed kgo.FirstErrPromise
		fetches.EachRecord(func(record *kgo.Record) {
			session.Produce(ctx, &kgo.Record{Topic: name + "-out", Partition: record.Partition, Value: record.Value}, failed.Promise())
		})
		produced := failed.Err() == nil
		committed, err := session.End(ctx, kgo.TransactionEndTry(produced))
		if err != nil {
			return err
		}
		if committed {
			fmt.Println("copied", fetches.NumRecords())
		}
	}
}
