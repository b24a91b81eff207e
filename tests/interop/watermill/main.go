// A Watermill service, reduced to what a test can drive: it publishes messages that it reads
// from standard input, or prints those that it consumes, one JSON object a line.
//
//	watermill publish kafka|amqp|nats|jetstream URL TOPIC
//	watermill consume kafka|amqp|nats|jetstream URL TOPIC COUNT
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/IBM/sarama"
	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill-amqp/v3/pkg/amqp"
	"github.com/ThreeDotsLabs/watermill-kafka/v3/pkg/kafka"
	"github.com/ThreeDotsLabs/watermill-nats/v2/pkg/nats"
	"github.com/ThreeDotsLabs/watermill/message"
	natsgo "github.com/nats-io/nats.go"
)

// line is a message as the test sees it.
type line struct {
	UUID     string            `json:"uuid"`
	Payload  []byte            `json:"payload"`
	Metadata map[string]string `json:"metadata"`
}

var logger = watermill.NewStdLoggerWithOut(os.Stderr, false, false)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) < 4 {
		return fmt.Errorf("usage: watermill publish|consume BROKER URL TOPIC [COUNT]")
	}
	verb, broker, url, topic := arguments[0], arguments[1], arguments[2], arguments[3]
	if verb == "publish" {
		return publish(broker, url, topic)
	}
	count, err := strconv.Atoi(arguments[4])
	if err != nil {
		return err
	}
	return consume(broker, url, topic, count)
}

func publish(broker, url, topic string) error {
	publisher, err := newPublisher(broker, url)
	if err != nil {
		return err
	}
	defer publisher.Close()
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var given line
		if err := json.Unmarshal(lines.Bytes(), &given); err != nil {
			return err
		}
		msg := message.NewMessage(given.UUID, given.Payload)
		for name, value := range given.Metadata {
			msg.Metadata.Set(name, value)
		}
		if err := publisher.Publish(topic, msg); err != nil {
			return err
		}
	}
	return lines.Err()
}

func consume(broker, url, topic string, count int) error {
	subscriber, err := newSubscriber(broker, url)
	if err != nil {
		return err
	}
	defer subscriber.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	messages, err := subscriber.Subscribe(ctx, topic)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	output := json.NewEncoder(os.Stdout)
	for ; count > 0; count-- {
		select {
		case msg := <-messages:
			if msg == nil {
				return fmt.Errorf("the subscription ended")
			}
			taken := line{UUID: msg.UUID, Payload: msg.Payload, Metadata: msg.Metadata}
			if err := output.Encode(taken); err != nil {
				return err
			}
			msg.Ack()
		case <-ctx.Done():
			return fmt.Errorf("%d messages did not come", count)
		}
	}
	return nil
}

func newPublisher(broker, url string) (message.Publisher, error) {
	switch broker {
	case "kafka":
		return kafka.NewPublisher(kafka.PublisherConfig{
			Brokers: brokers(url), Marshaler: kafka.DefaultMarshaler{},
		}, logger)
	case "amqp":
		return amqp.NewPublisher(topicConfig(url), logger)
	default:
		return nats.NewPublisher(nats.PublisherConfig{
			URL: url, Marshaler: &nats.NATSMarshaler{}, JetStream: jetStream(broker),
		}, logger)
	}
}

func newSubscriber(broker, url string) (message.Subscriber, error) {
	switch broker {
	case "kafka":
		// Without a group: every partition, from the beginning.
		return kafka.NewSubscriber(kafka.SubscriberConfig{
			Brokers: brokers(url), Unmarshaler: kafka.DefaultMarshaler{},
			OverwriteSaramaConfig: fromTheBeginning(),
		}, logger)
	case "amqp":
		return amqp.NewSubscriber(topicConfig(url), logger)
	default:
		config := nats.SubscriberConfig{
			URL: url, Unmarshaler: &nats.NATSMarshaler{}, JetStream: jetStream(broker),
			AckWaitTimeout: 30 * time.Second, CloseTimeout: time.Second,
			SubscribeTimeout: 30 * time.Second, SubscribersCount: 1,
		}
		connection, err := natsgo.Connect(url)
		if err != nil {
			return nil, err
		}
		subscriber, err := nats.NewSubscriberWithNatsConn(
			connection, config.GetSubscriberSubscriptionConfig(), logger)
		return flushing{subscriber, connection}, err
	}
}

// flushing subscribes for certain: NATS confirms no subscription.
type flushing struct {
	message.Subscriber
	connection *natsgo.Conn
}

func (f flushing) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	messages, err := f.Subscriber.Subscribe(ctx, topic)
	if err != nil {
		return nil, err
	}
	return messages, f.connection.Flush()
}

// topicConfig is for Protoflow's topic exchange.
func topicConfig(url string) amqp.Config {
	queue := "watermill-" + watermill.NewShortUUID()
	config := amqp.NewDurableTopicConfig(url, "protoflow", queue)
	config.Exchange.Durable = true
	config.Queue = amqp.QueueConfig{
		GenerateName: amqp.GenerateQueueNameConstant(queue), AutoDelete: true,
	}
	return config
}

func jetStream(broker string) nats.JetStreamConfig {
	return nats.JetStreamConfig{
		Disabled:         broker == "nats",
		SubscribeOptions: []natsgo.SubOpt{natsgo.DeliverAll(), natsgo.AckExplicit()},
	}
}

func brokers(url string) []string {
	return strings.Split(url, ",")
}

func fromTheBeginning() *sarama.Config {
	config := kafka.DefaultSaramaSubscriberConfig()
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	return config
}
