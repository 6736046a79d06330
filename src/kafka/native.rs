//! The crate's only unsafe code: librdkafka calls that rdkafka does not wrap, behind safe types. No decisions here.
#![expect(unsafe_code, reason = "rdkafka wraps neither batch reads, leader epochs, topic ids nor ListOffsets")]

use std::ffi::{CStr, CString, c_char};
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::bindings::{self as rd, rd_kafka_resp_err_t as RespErr};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::types::RDKafkaErrorCode;
use uuid::Uuid;

use super::context::Context;
use crate::model::ids::TopicPartition;
use crate::model::ledger::Position;
use crate::model::offsets::NextOffset;
use crate::model::raw::{Headers, TimestampType};

/// The consumer of this process.
pub(super) type Consumer = BaseConsumer<Context>;

/// A librdkafka queue; keeps its consumer alive, as librdkafka demands.
pub(super) struct Queue {
    queue: NonNull<rd::rd_kafka_queue_t>,
    _consumer: Arc<Consumer>,
}

// SAFETY: librdkafka's queues are guarded by their own mutex; any thread may use or destroy them.
unsafe impl Send for Queue {}

impl Queue {
    /// A fresh queue, for records of several partitions or for the answers of one request.
    pub(super) fn new(consumer: &Arc<Consumer>) -> Option<Self> {
        // SAFETY: the client's pointer is valid as long as the consumer lives.
        let queue = unsafe { rd::rd_kafka_queue_new(consumer.client().native_ptr()) };
        Some(Self { queue: NonNull::new(queue)?, _consumer: Arc::clone(consumer) })
    }

    /// The queue into which librdkafka puts what it fetches of one partition.
    pub(super) fn of_partition(consumer: &Arc<Consumer>, source: &TopicPartition) -> Option<Self> {
        let topic = CString::new(source.topic.as_ref()).ok()?;
        // SAFETY: the client's pointer is valid, and the topic's name is copied by the callee.
        let queue = unsafe {
            rd::rd_kafka_queue_get_partition(consumer.client().native_ptr(), topic.as_ptr(), source.partition)
        };
        Some(Self { queue: NonNull::new(queue)?, _consumer: Arc::clone(consumer) })
    }

    /// Sends what this queue holds and will get to `target`.
    pub(super) fn forward_to(&self, target: &Queue) {
        // SAFETY: both queues are alive; librdkafka takes its own reference to the target.
        unsafe { rd::rd_kafka_queue_forward(self.queue.as_ptr(), target.queue.as_ptr()) }
    }

    /// Moves up to `messages.capacity()` waiting messages into `messages`, in order, without waiting.
    pub(super) fn take_batch(&self, messages: &mut Vec<Message>) {
        messages.clear();
        let spare = messages.spare_capacity_mut();
        // SAFETY: `Message` is a transparent non-null pointer to a message that its holder owns; librdkafka fills the
        // first `count` of the spare slots with such pointers and leaves the rest alone.
        unsafe {
            let count = rd::rd_kafka_consume_batch_queue(
                self.queue.as_ptr(),
                0,
                spare.as_mut_ptr().cast::<*mut rd::rd_kafka_message_t>(),
                spare.len(),
            );
            messages.set_len(usize::try_from(count).unwrap_or(0));
        }
    }

    /// The next event, once it is there.
    fn event(&self, limit: Duration) -> Option<Event> {
        let limit_ms = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the queue is alive; the event returned belongs to the caller.
        NonNull::new(unsafe { rd::rd_kafka_queue_poll(self.queue.as_ptr(), limit_ms) }).map(Event)
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: this handle's reference is given back once; the consumer is still alive.
        unsafe { rd::rd_kafka_queue_destroy(self.queue.as_ptr()) }
    }
}

/// A record, or what librdkafka says instead of one; owned.
#[repr(transparent)]
pub(super) struct Message(NonNull<rd::rd_kafka_message_t>);

// SAFETY: a message belongs to its holder alone, and librdkafka lets any thread destroy it.
unsafe impl Send for Message {}

impl Message {
    fn raw(&self) -> &rd::rd_kafka_message_t {
        // SAFETY: the message is owned by `self` and nobody writes to it.
        unsafe { self.0.as_ref() }
    }

    /// True where both come from one partition; cheap, so that runs need one look-up only.
    pub(super) fn same_partition(&self, other: &Self) -> bool {
        self.raw().rkt == other.raw().rkt && self.raw().partition == other.raw().partition
    }

    pub(super) fn topic(&self) -> &str {
        // SAFETY: a message keeps its topic alive, and a topic its NUL-terminated name.
        unsafe { text(rd::rd_kafka_topic_name(self.raw().rkt)) }
    }

    pub(super) fn partition(&self) -> i32 {
        self.raw().partition
    }

    pub(super) fn offset(&self) -> i64 {
        self.raw().offset
    }

    /// What librdkafka says instead of delivering a record, with its words.
    pub(super) fn error(&self) -> Option<(RDKafkaErrorCode, &str)> {
        let raw = self.raw();
        if raw.err == RespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return None;
        }
        // SAFETY: the text lives as long as the message.
        Some((raw.err.into(), unsafe { text(rd::rd_kafka_message_errstr(raw)) }))
    }

    pub(super) fn key(&self) -> Option<&[u8]> {
        // SAFETY: key and its length describe bytes that live as long as the message.
        unsafe { bytes(self.raw().key.cast(), self.raw().key_len) }
    }

    pub(super) fn value(&self) -> Option<&[u8]> {
        // SAFETY: payload and its length describe bytes that live as long as the message.
        unsafe { bytes(self.raw().payload.cast(), self.raw().len) }
    }

    /// Milliseconds since the epoch (-1: none), and who set it.
    pub(super) fn timestamp(&self) -> (i64, TimestampType) {
        let mut kind = rd::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: both pointers are valid for the call.
        let timestamp_ms = unsafe { rd::rd_kafka_message_timestamp(self.raw(), &raw mut kind) };
        let kind = match kind {
            rd::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE => TimestampType::NotAvailable,
            rd::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_CREATE_TIME => TimestampType::CreateTime,
            rd::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME => TimestampType::LogAppendTime,
        };
        (timestamp_ms, kind)
    }

    /// -1 where the broker gave none.
    pub(super) fn leader_epoch(&self) -> i32 {
        // SAFETY: the message is valid.
        unsafe { rd::rd_kafka_message_leader_epoch(self.raw()) }
    }

    /// Appends the headers to `arena` in the encoding of [`Headers`].
    pub(super) fn push_headers(&self, arena: &mut Vec<u8>) {
        let mut headers = ptr::null_mut();
        // SAFETY: the message is valid; the headers stay its own and live as long as it.
        if unsafe { rd::rd_kafka_message_headers(self.raw(), &raw mut headers) } != RespErr::RD_KAFKA_RESP_ERR_NO_ERROR
        {
            return;
        }
        for index in 0.. {
            let (mut name, mut value, mut len) = (ptr::null(), ptr::null(), 0);
            // SAFETY: all pointers are valid for the call; what it returns points into the message's headers.
            unsafe {
                let found = rd::rd_kafka_header_get_all(headers, index, &raw mut name, &raw mut value, &raw mut len);
                if found != RespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                    return;
                }
                Headers::push(arena, CStr::from_ptr(name).to_bytes(), bytes(value.cast(), len));
            }
        }
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        // SAFETY: the message is owned and destroyed once.
        unsafe { rd::rd_kafka_message_destroy(self.0.as_ptr()) }
    }
}

/// Adds these to the brokers that the client tries to reach, unless it knows them.
pub(super) fn add_brokers(consumer: &Consumer, servers: &str) {
    let Ok(servers) = CString::new(servers) else { return };
    // SAFETY: the client's pointer is valid as long as the consumer lives; the text is copied by the callee.
    let added = unsafe { rd::rd_kafka_brokers_add(consumer.client().native_ptr(), servers.as_ptr()) };
    tracing::debug!(added, "told librdkafka of the bootstrap servers again");
}

/// A list of partitions with the positions to read them from, leader epochs included: where one is known, librdkafka
/// asks the broker whether the log has been truncated below it.
pub(super) fn start_list<'a>(starts: impl Iterator<Item = (&'a TopicPartition, Position)>) -> TopicPartitionList {
    let list = TopicPartitionList::new();
    for (source, at) in starts {
        let Ok(topic) = CString::new(source.topic.as_ref()) else { continue };
        // SAFETY: the list is valid and `list` is its only owner; the element added is valid until the next change.
        unsafe {
            let element = rd::rd_kafka_topic_partition_list_add(list.ptr(), topic.as_ptr(), source.partition);
            (*element).offset = at.next.0;
            rd::rd_kafka_topic_partition_set_leader_epoch(element, at.leader_epoch.unwrap_or(-1));
        }
    }
    list
}

/// What a broker answers for one topic.
pub(super) struct Description {
    pub(super) topic_id: Option<Uuid>,
    pub(super) partitions: Vec<i32>,
}

/// Asks that broker for a topic's id and partitions. Blocks up to `limit`.
pub(super) fn describe_topic(
    consumer: &Arc<Consumer>,
    topic: &str,
    broker_id: i32,
    limit: Duration,
) -> Result<Description, RDKafkaErrorCode> {
    let name = CString::new(topic).map_err(|_| RDKafkaErrorCode::InvalidTopic)?;
    let queue = Queue::new(consumer).ok_or(RDKafkaErrorCode::Fail)?;
    let client = consumer.client().native_ptr();
    let options = AdminOptions::new(consumer, rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS, limit)?;
    options.set_broker(broker_id)?;
    // SAFETY: the collection copies the name; collection, options and queue are alive for the call.
    unsafe {
        let mut names: [*const c_char; 1] = [name.as_ptr()];
        let topics = rd::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
        rd::rd_kafka_DescribeTopics(client, topics, options.0.as_ptr(), queue.queue.as_ptr());
        rd::rd_kafka_TopicCollection_destroy(topics);
    }
    let event = queue.event(limit + ANSWER_GRACE).ok_or(RDKafkaErrorCode::OperationTimedOut)?;
    event.check()?;
    // SAFETY: the result and all that it points to live as long as the event.
    unsafe {
        let result = rd::rd_kafka_event_DescribeTopics_result(event.0.as_ptr());
        let mut count = 0;
        let topics = rd::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        let description = *list(topics, count).first().ok_or(RDKafkaErrorCode::UnknownTopicOrPartition)?;
        let error = rd::rd_kafka_error_code(rd::rd_kafka_TopicDescription_error(description));
        if error != RespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(error.into());
        }
        let mut count = 0;
        let partitions = rd::rd_kafka_TopicDescription_partitions(description, &raw mut count);
        let partitions =
            list(partitions, count).iter().map(|p| rd::rd_kafka_TopicPartitionInfo_partition(*p)).collect();
        Ok(Description { topic_id: topic_id(rd::rd_kafka_TopicDescription_topic_id(description)), partitions })
    }
}

/// A partition and its offset, or why there is none.
pub(super) type OffsetAnswer = (TopicPartition, Result<NextOffset, RDKafkaErrorCode>);

/// Which offset of a partition is asked for.
#[derive(Clone, Copy)]
pub(super) enum OffsetSpec {
    Earliest,
    Latest,
    /// The first at or after that many milliseconds since the epoch.
    Timestamp(i64),
}

/// Asks the partitions' leaders for offsets, one request per broker; -1 where there is none. Blocks up to `limit`.
pub(super) fn list_offsets(
    consumer: &Arc<Consumer>,
    partitions: &[TopicPartition],
    spec: OffsetSpec,
    committed: bool,
    limit: Duration,
) -> Result<Vec<OffsetAnswer>, RDKafkaErrorCode> {
    let wanted = NextOffset(match spec {
        OffsetSpec::Earliest => rd::rd_kafka_OffsetSpec_t::RD_KAFKA_OFFSET_SPEC_EARLIEST as i64,
        OffsetSpec::Latest => rd::rd_kafka_OffsetSpec_t::RD_KAFKA_OFFSET_SPEC_LATEST as i64,
        OffsetSpec::Timestamp(timestamp_ms) => timestamp_ms,
    });
    let wanted = start_list(partitions.iter().map(|source| (source, Position { next: wanted, leader_epoch: None })));
    let queue = Queue::new(consumer).ok_or(RDKafkaErrorCode::Fail)?;
    let options = AdminOptions::new(consumer, rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTOFFSETS, limit)?;
    let isolation = if committed {
        rd::rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_COMMITTED
    } else {
        rd::rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_UNCOMMITTED
    };
    // SAFETY: list, options and queue are alive for the call, which copies the list; the error may be null, and is ours.
    unsafe {
        rd::rd_kafka_error_destroy(rd::rd_kafka_AdminOptions_set_isolation_level(options.0.as_ptr(), isolation));
        let client = consumer.client().native_ptr();
        rd::rd_kafka_ListOffsets(client, wanted.ptr(), options.0.as_ptr(), queue.queue.as_ptr());
    }
    let event = queue.event(limit + ANSWER_GRACE).ok_or(RDKafkaErrorCode::OperationTimedOut)?;
    event.check()?;
    // SAFETY: the result and all that it points to live as long as the event.
    unsafe {
        let result = rd::rd_kafka_event_ListOffsets_result(event.0.as_ptr());
        let mut count = 0;
        let infos = rd::rd_kafka_ListOffsets_result_infos(result, &raw mut count);
        let answer = |info: &*const rd::rd_kafka_ListOffsetsResultInfo_t| {
            let found = &*rd::rd_kafka_ListOffsetsResultInfo_topic_partition(*info);
            let offset = match found.err {
                RespErr::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(NextOffset(found.offset)),
                error => Err(error.into()),
            };
            (TopicPartition::new(text(found.topic), found.partition), offset)
        };
        Ok(list(infos, count).iter().map(answer).collect())
    }
}

/// Lets groups of a mock cluster form at once.
#[cfg(test)]
pub(super) fn no_rebalance_delay<C: rdkafka::ClientContext>(client: &rdkafka::client::Client<C>) {
    // SAFETY: the client's pointer is valid; its mock cluster, if any, lives as long as it.
    unsafe {
        let mock = rd::rd_kafka_handle_mock_cluster(client.native_ptr());
        assert!(!mock.is_null(), "the client has no mock cluster");
        rd::rd_kafka_mock_group_initial_rebalance_delay_ms(mock, 0);
    }
}

/// librdkafka answers a request at its own time limit; this much later it is given up.
const ANSWER_GRACE: Duration = Duration::from_secs(1);

struct Event(NonNull<rd::rd_kafka_event_t>);

impl Event {
    fn check(&self) -> Result<(), RDKafkaErrorCode> {
        // SAFETY: the event is alive.
        match unsafe { rd::rd_kafka_event_error(self.0.as_ptr()) } {
            RespErr::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
            error => Err(error.into()),
        }
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: the event is owned and destroyed once.
        unsafe { rd::rd_kafka_event_destroy(self.0.as_ptr()) }
    }
}

struct AdminOptions(NonNull<rd::rd_kafka_AdminOptions_t>);

impl AdminOptions {
    fn new(consumer: &Consumer, operation: rd::rd_kafka_admin_op_t, limit: Duration) -> Result<Self, RDKafkaErrorCode> {
        let limit_ms = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
        let mut reason: [c_char; 256] = [0; 256];
        // SAFETY: the client's pointer is valid; the buffer's length is passed with it.
        unsafe {
            let options = rd::rd_kafka_AdminOptions_new(consumer.client().native_ptr(), operation);
            let options = Self(NonNull::new(options).ok_or(RDKafkaErrorCode::Fail)?);
            let pointer = options.0.as_ptr();
            let set =
                rd::rd_kafka_AdminOptions_set_request_timeout(pointer, limit_ms, reason.as_mut_ptr(), reason.len());
            if set == RespErr::RD_KAFKA_RESP_ERR_NO_ERROR { Ok(options) } else { Err(set.into()) }
        }
    }
}

impl AdminOptions {
    /// Any broker can answer; without this librdkafka waits for the controller.
    fn set_broker(&self, broker_id: i32) -> Result<(), RDKafkaErrorCode> {
        let mut reason: [c_char; 256] = [0; 256];
        // SAFETY: the options are alive; the buffer's length is passed with it.
        let set = unsafe {
            rd::rd_kafka_AdminOptions_set_broker(self.0.as_ptr(), broker_id, reason.as_mut_ptr(), reason.len())
        };
        if set == RespErr::RD_KAFKA_RESP_ERR_NO_ERROR { Ok(()) } else { Err(set.into()) }
    }
}

impl Drop for AdminOptions {
    fn drop(&mut self) {
        // SAFETY: the options are owned and destroyed once.
        unsafe { rd::rd_kafka_AdminOptions_destroy(self.0.as_ptr()) }
    }
}

/// # Safety
/// `id` is null or valid.
unsafe fn topic_id(id: *const rd::rd_kafka_Uuid_t) -> Option<Uuid> {
    if id.is_null() {
        return None;
    }
    // SAFETY: as the caller says.
    let (most, least) =
        unsafe { (rd::rd_kafka_Uuid_most_significant_bits(id), rd::rd_kafka_Uuid_least_significant_bits(id)) };
    let id = Uuid::from_u64_pair(most.cast_unsigned(), least.cast_unsigned());
    (!id.is_nil()).then_some(id)
}

/// # Safety
/// `text` is null or a NUL-terminated string that outlives `'a`.
unsafe fn text<'a>(text: *const c_char) -> &'a str {
    if text.is_null() {
        return "";
    }
    // SAFETY: as the caller says.
    unsafe { CStr::from_ptr(text) }.to_str().unwrap_or_default()
}

/// # Safety
/// `start` is null or points to `len` bytes that outlive `'a`.
unsafe fn bytes<'a>(start: *const u8, len: usize) -> Option<&'a [u8]> {
    // SAFETY: as the caller says.
    (!start.is_null()).then(|| unsafe { slice::from_raw_parts(start, len) })
}

/// # Safety
/// `start` is null or points to `count` pointers that outlive `'a`.
unsafe fn list<'a, T>(start: *mut *const T, count: usize) -> &'a [*const T] {
    if start.is_null() {
        return &[];
    }
    // SAFETY: as the caller says.
    unsafe { slice::from_raw_parts(start, count) }
}
