"""Every exported item of the Go runtime, its Python name, and the test that proves it.

`docs/parity.md` is made from this list: `python -m tests.parity.items > docs/parity.md`.
"""

from __future__ import annotations

from typing import NamedTuple


class Item(NamedTuple):
    """One row: the item of the Go runtime, `module:name` in Python, the test's id."""

    go: str
    python: str
    test: str


_PLAIN = "tests/registrations/test_plain_handlers.py"
_STATS = "tests/stats/test_handlers.py"
_WEB = "tests/web/test_web.py"
_HOOKS = "tests/middleware/test_job_hooks.py"
_CHAIN = "tests/middleware/test_chain.py"
_FAILURES = "tests/middleware/test_failures.py"
_HERE = "tests/parity/test_parity.py"
_REPORT = "protoflow.observability.report"
_OPTIONS = "protoflow:PublishOptions"
_EVERY_OPTION = f"{_PLAIN}::test_events_carry_every_option"
_VOCABULARY = f"{_PLAIN}::test_the_vocabulary_of_event_handlers"
_SHAPE = f"{_WEB}::test_handlers_are_reported_in_the_shape_of_go"
_CATEGORIES = f"{_STATS}::test_errors_have_categories"
_DLQ = f"{_STATS}::test_an_average_of_retries_is_kept_for_dead_letters"
_COUNTS = f"{_HERE}::test_dead_letters_are_counted_replayed_purged_and_reset"
_LIFE = "tests/acceptance/test_service_lifecycle.py"

ITEMS = [
    Item("MustProtoMessage", f"{_HERE}:message_of", f"{_HERE}::test_a_message_class_is_its_own_factory"),
    Item("NewProtoMessage", f"{_HERE}:message_of", f"{_HERE}::test_a_message_class_is_its_own_factory"),
    Item("NewEventID", "protoflow.ids:new_id", "tests/runtime/test_ids.py::test_ids_are_ulids_of_this_moment"),
    Item("NewMessageFromProto", "protoflow.publishing.encoder:Encoder", f"{_PLAIN}::test_protobuf_without_a_generated_module"),
    Item("PublishProto", "protoflow.publishing.event_publisher:EventPublisher.publish_proto", f"{_PLAIN}::test_protobuf_without_a_generated_module"),
    Item("RegisterCloudEventsHandler", "protoflow.service:Service.register_cloudevents_handler", _VOCABULARY),
    Item("RegisterJSONHandler", "protoflow.service:Service.register_json_handler", f"{_PLAIN}::test_json_is_read_as_the_type_and_written_with_correlation"),
    Item("RegisterMessageHandler", "protoflow.service:Service.register_message_handler", f"{_PLAIN}::test_raw_messages_are_handled_and_what_is_returned_is_published"),
    Item("RegisterProtoHandler", "protoflow.service:Service.register_proto_handler", f"{_PLAIN}::test_protobuf_without_a_generated_module"),
    Item("CloudEventsHandlerRegistration", "protoflow.registrations.plain_handlers:event_registration", f"{_PLAIN}::test_max_attempts_of_an_event_handler"),
    Item("MessageHandlerRegistration", "protoflow.registrations.plain_handlers:message_registration", f"{_PLAIN}::test_raw_messages_are_handled_and_what_is_returned_is_published"),
    Item("BacklogMetrics", f"{_REPORT}:BacklogMetrics", _SHAPE),
    Item("DependencyHealth", f"{_REPORT}:DependencyHealth", _SHAPE),
    Item("DependencyStatusUnknown", f"{_REPORT}:DependencyHealth", _SHAPE),
    Item("DependencyStatusHealthy", f"{_REPORT}:DependencyHealth", _SHAPE),
    Item("DependencyStatusDegraded", f"{_REPORT}:DependencyHealth", _SHAPE),
    Item("ResourceUsage", "protoflow.observability.resources:ResourceUsage", _SHAPE),
    Item("HandlerInfo", f"{_REPORT}:HandlerInfo", _SHAPE),
    Item("HandlerStats", "protoflow.stats.handlers:HandlerStats", f"{_STATS}::test_messages_and_attempts_are_counted_apart"),
    Item("HandlerStats.MarshalJSON", f"{_REPORT}:HandlerInfo.as_dict", _SHAPE),
    Item("LatencyMetrics", "protoflow.stats.latency:LatencyMetrics", f"{_STATS}::test_percentiles_are_those_of_the_last_runs"),
    Item("ThroughputMetrics", "protoflow.stats.latency:ThroughputMetrics", f"{_STATS}::test_throughput_is_that_of_the_last_minute"),
    Item("ErrorBreakdown", "protoflow.stats.handlers:ErrorBreakdown", _CATEGORIES),
    Item("ErrorBreakdown.Record", "protoflow.stats.handlers:ErrorBreakdown.record", _CATEGORIES),
    Item("ErrorCategory", "protoflow:ErrorCategory", _CATEGORIES),
    Item("ErrorCategoryNone", "protoflow:ErrorCategory", _CATEGORIES),
    Item("ErrorCategoryValidation", "protoflow:ErrorCategory", _CATEGORIES),
    Item("ErrorCategoryTransport", "protoflow:ErrorCategory", _CATEGORIES),
    Item("ErrorCategoryDownstream", "protoflow:ErrorCategory", _CATEGORIES),
    Item("ErrorCategoryOther", "protoflow:ErrorCategory", _CATEGORIES),
    Item("ErrorClassifier", "protoflow.stats.handlers:classify_error", f"{_HERE}::test_errors_are_classified_as_reported"),
    Item("DLQMetrics", "protoflow.stats.dead_letters:DLQMetrics", _DLQ),
    Item("NewDLQMetrics", "protoflow.stats.dead_letters:DLQMetrics", _DLQ),
    Item("DLQMetrics.GetSnapshot", "protoflow.stats.dead_letters:DLQMetrics.snapshot", _COUNTS),
    Item("DLQMetrics.GetTopicMetrics", "protoflow.stats.dead_letters:DLQMetrics.topic", _COUNTS),
    Item("DLQMetrics.RecordMessageReplayed", "protoflow.stats.dead_letters:DLQTopicMetrics.replay", _COUNTS),
    Item("DLQMetrics.RecordMessageToDLQ", "protoflow.stats.dead_letters:DLQTopicMetrics.add", _COUNTS),
    Item("DLQMetrics.RecordMessagesPurged", "protoflow.stats.dead_letters:DLQTopicMetrics.purge", _COUNTS),
    Item("DLQMetrics.Register", "protoflow.observability.prometheus:Exposition", "tests/observability/test_prometheus.py::test_every_count_is_there"),
    Item("DLQMetrics.Reset", "protoflow.stats.dead_letters:DLQMetrics.reset", _COUNTS),
    Item("DLQMetrics.SetCurrentCount", "protoflow.stats.dead_letters:DLQTopicMetrics.current", f"{_STATS}::test_between_two_counts_of_the_broker_the_counters_go_on"),
    Item("DLQMetricsSnapshot", "protoflow.stats.dead_letters:DLQMetrics.snapshot", _COUNTS),
    Item("DLQTopicMetrics", "protoflow.stats.dead_letters:DLQTopicMetrics", _COUNTS),
    Item("EventContext", "protoflow.events:EventContext", _EVERY_OPTION),
    Item("EventContext.Publish", "protoflow.events:EventContext.publish", _EVERY_OPTION),
    Item("EventContext.UnmarshalData", "protoflow.events:EventContext.unmarshal_data", _EVERY_OPTION),
    Item("EventHandler", "protoflow.registrations.plain_handlers:EventHandler", _VOCABULARY),
    Item("JobContext", "protoflow.middleware:JobContext", f"{_HOOKS}::test_hooks_see_every_attempt_with_a_filled_context"),
    Item("JobHooks", "protoflow.middleware:JobHooks", f"{_HOOKS}::test_hooks_see_every_attempt_with_a_filled_context"),
    Item("JobHooks.Merge", "protoflow.middleware:JobHooks.merge", f"{_HOOKS}::test_merged_hooks_are_called_in_turn"),
    Item("AlertingHooks", "protoflow.middleware:alerting_hooks", f"{_HOOKS}::test_merged_hooks_are_called_in_turn"),
    Item("LoggingHooks", "protoflow.middleware:logging_hooks", f"{_HOOKS}::test_merged_hooks_are_called_in_turn"),
    Item("MetricsHooks", "protoflow.middleware:metrics_hooks", f"{_HOOKS}::test_merged_hooks_are_called_in_turn"),
    Item("JobHooksMiddleware", "protoflow.middleware:job_hooks", f"{_HOOKS}::test_hooks_see_every_attempt_with_a_filled_context"),
    Item("MiddlewareBuilder", "protoflow.pipeline:Middleware", f"{_CHAIN}::test_middlewares_of_ones_own_stand_next_to_the_handler_or_where_they_are_put"),
    Item("MiddlewareRegistration", "protoflow.pipeline:Named", f"{_CHAIN}::test_middlewares_of_ones_own_stand_next_to_the_handler_or_where_they_are_put"),
    Item("DefaultMiddlewares", "protoflow.middleware:default_chain", f"{_CHAIN}::test_the_default_order"),
    Item("CorrelationIDMiddleware", "protoflow.middleware:correlation_id", f"{_CHAIN}::test_correlation_and_causation_are_carried_on"),
    Item("LogMessagesMiddleware", "protoflow.middleware:log_messages", "tests/middleware/test_log_messages.py::test_every_run_is_a_record_with_fields"),
    Item("MetricsMiddleware", "protoflow.middleware:metrics", f"{_STATS}::test_messages_and_attempts_are_counted_apart"),
    Item("OutboxMiddleware", "protoflow.middleware:outbox", "tests/middleware/test_outbox.py::test_outputs_are_stored_in_place_of_being_published"),
    Item("OutboxStore", "protoflow.outbox:OutboxStore", "tests/middleware/test_outbox.py::test_a_relay_publishes_what_waits"),
    Item("PoisonQueueMiddleware", "protoflow.middleware:poison_queue", f"{_FAILURES}::test_retries_back_off_and_end_in_the_dead_letters"),
    Item("ProtoValidateMiddleware", "protoflow.middleware:proto_validate", "tests/middleware/test_proto_validate.py::test_what_violates_a_rule_is_dead_lettered_at_once"),
    Item("ProtoValidator", "protoflow.contract.validation:ProtoValidator", "tests/middleware/test_proto_validate.py::test_a_validator_of_ones_own_sees_all_messages"),
    Item("RecovererMiddleware", "protoflow.middleware:recoverer", f"{_FAILURES}::test_an_error_of_a_middleware_is_handled_like_a_handlers"),
    Item("RetryMiddleware", "protoflow.middleware:retry", f"{_FAILURES}::test_retries_back_off_and_end_in_the_dead_letters"),
    Item("RetryMiddlewareConfig", "protoflow:RetryPolicy", "tests/contract/test_policy.py::test_waits_are_those_of_the_formula"),
    Item("TracerMiddleware", "protoflow.middleware:tracer", "tests/middleware/test_tracer.py::test_one_trace_from_publisher_to_dead_letter_and_replay"),
    Item("Producer", "protoflow.producer:Publisher", "tests/acceptance/test_service_outputs.py::test_a_handler_in_a_thread_publishes_too"),
    Item("PublishOption", _OPTIONS, _EVERY_OPTION),
    Item("WithCorrelationID", _OPTIONS, _EVERY_OPTION),
    Item("WithDataContentType", _OPTIONS, f"{_HERE}::test_data_of_another_content_type"),
    Item("WithDataSchema", _OPTIONS, _EVERY_OPTION),
    Item("WithExtension", _OPTIONS, _EVERY_OPTION),
    Item("WithMaxAttempts", _OPTIONS, _EVERY_OPTION),
    Item("WithSubject", _OPTIONS, _EVERY_OPTION),
    Item("WithTracing", _OPTIONS, _EVERY_OPTION),
    Item("Service", "protoflow.service:Service", f"{_LIFE}::test_run_ends_on_request_and_drains"),
    Item("NewService", "protoflow.service:Service", f"{_LIFE}::test_run_ends_on_request_and_drains"),
    Item("TryNewService", "protoflow.service:Service", "tests/config/test_config.py::test_every_mistake_is_named_at_once"),
    Item("ServiceDependencies", "protoflow.middleware:Dependencies", f"{_HERE}::test_errors_are_classified_as_reported"),
    Item("Service.ConsumeEvents", "protoflow.service:Service.consume_events", _EVERY_OPTION),
    Item("Service.GetTransportCapabilities", "protoflow.service:Service.capabilities", "tests/registrations/test_plan.py::test_a_start_is_refused_exactly_when_a_demand_is_not_met"),
    Item("Service.Publish", "protoflow.service:Service.publish", f"{_PLAIN}::test_raw_messages_are_handled_and_what_is_returned_is_published"),
    Item("Service.PublishData", "protoflow.service:Service.publish_data", _EVERY_OPTION),
    Item("Service.PublishDataAfter", "protoflow.service:Service.publish_data_after", f"{_PLAIN}::test_a_delayed_event_comes_when_it_is_due"),
    Item("Service.PublishEvent", "protoflow.service:Service.publish_event", f"{_HERE}::test_data_of_another_content_type"),
    Item("Service.PublishEventAfter", "protoflow.service:Service.publish_event_after", f"{_PLAIN}::test_a_delayed_event_comes_when_it_is_due"),
    Item("Service.PublishProto", "protoflow.service:Service.publish_proto", f"{_PLAIN}::test_protobuf_without_a_generated_module"),
    Item("Service.RegisterHTTPHandler", "protoflow.service:Service.register_http_handler", f"{_WEB}::test_pages_of_ones_own_are_under_the_same_token"),
    Item("Service.RegisterMiddleware", "protoflow.service:Service.register_middleware", f"{_HERE}::test_a_middleware_is_registered_where_it_is_put"),
    Item("Service.RegisterProtoMessage", "protoflow.service:Service.register_proto_message", f"{_HERE}::test_a_registered_message_is_checked_when_it_is_published"),
    Item("Service.Start", "protoflow.service:Service.run", f"{_LIFE}::test_run_ends_on_request_and_drains"),
    Item("Service.StartWebUIServer", "protoflow.service:Service.start_web_ui", _SHAPE),
    Item("Service.Stop", "protoflow.service:Service.stop", f"{_LIFE}::test_stopping_twice_does_no_harm"),
    Item("UnprocessableEventError", "protoflow.outcomes:Unprocessable", _VOCABULARY),
]  # fmt: skip


def table() -> str:
    """The page."""
    lines = [
        "# Parity with the Go runtime",
        "",
        "What is the Python name of each exported item of the Go runtime? This table lists every",
        "exported item of the package `runtime` of Go protoflow v0.5.1, with its Python name and",
        "the test that proves it. `make docs` writes this page from `tests/parity/items.py`.",
        "",
        "| Go | Python | proved by |",
        "|---|---|---|",
    ]
    for item in ITEMS:
        python = item.python.replace(":", ".").removesuffix(".py")
        if item.python.startswith("tests/"):
            python = "the message class itself: `Order()`"
            lines.append(f"| `{item.go}` | {python} | `{item.test}` |")
        else:
            lines.append(f"| `{item.go}` | `{python}` | `{item.test}` |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table(), end="")
