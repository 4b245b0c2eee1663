//! Reads the topics of facts as a member of a consumer group.
//!
//! One thread polls the client and never waits for the database: a member that does not poll loses its partitions. Each partition has a
//! task of its own ([`Partition`]), which reports back over a channel. A partition whose messages take too much memory is paused.
//!
//! A partition is read in these steps: the group assigns it; its position is looked up in the database, and what the topic has is asked
//! of the brokers; [`start`] decides where to begin; the client is told to read. Until then the client waits, and goes on to be a member.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use ::metrics::{counter, gauge};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::Instant as Monotonic;
use tokio_util::sync::CancellationToken;

use super::listener::{Listener, TopicPartition, told};
use super::start::{Start, start};
use crate::app::App;
use crate::app::error::Error;
use crate::app::ingest_position::{self as position, Place, Stop};
use crate::app::message::Message;
use crate::app::model::IngestPosition;
use crate::config;
use crate::engine::time::Instant;
use crate::ingest::json::JsonMap;
use crate::ingest::partition::{MAX_IN_MEMORY, Partition, Report};
use crate::metrics;

/// The longest wait for a message. Reports of partitions are handled at least this often.
const POLL: Duration = Duration::from_millis(25);
/// How often offsets are committed to Kafka, and metrics are published.
const COMMIT_PERIOD: Duration = Duration::from_secs(1);
/// How often the positions in the database are read: somebody may have set one by hand.
const RESUME_PERIOD: Duration = Duration::from_secs(2);
/// How long the brokers may take to say what a topic has.
const WATERMARKS_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause before positions are looked up again after a failure.
const LOOK_UP_PAUSE: Duration = Duration::from_secs(1);

/// What reaches the thread from tasks.
enum Event {
    /// The positions of these partitions were looked up.
    Begin(Vec<Beginning>),
    /// The positions of these partitions could not be looked up.
    Failed(Vec<TopicPartition>, String),
    /// How often each of these positions has been set by hand.
    Resumes(Vec<(TopicPartition, i64)>),
    Partition(TopicPartition, Report),
}

/// Where a partition begins, and how often its position was set by hand.
struct Beginning {
    at: TopicPartition,
    start: Start,
    resumes: i64,
}

/// A partition that is assigned to this consumer.
struct Assigned {
    messages: UnboundedSender<Message>,
    revoked: CancellationToken,
    resumes: i64,
    /// The offset and the hash that the first message must have.
    compare: Option<(i64, String)>,
    waiting: usize,
    waiting_bytes: usize,
    is_paused: bool,
    /// Whether messages are dropped, because the partition has stopped.
    is_stopped: bool,
    /// Whether it is known where the partition begins. Until then, messages are dropped.
    is_known: bool,
    /// The first offset that is not done yet.
    next: Option<i64>,
    is_committed: bool,
    /// When the last message that was taken was sent.
    sent_at: Option<Instant>,
}

/// The consumer of facts. It is used by one thread.
pub(super) struct Consumer {
    app: Arc<App>,
    config: config::Kafka,
    map: Option<Arc<JsonMap>>,
    client: Arc<BaseConsumer<Listener>>,
    tasks: Handle,
    events: Receiver<Event>,
    sender: Sender<Event>,
    assigned: HashMap<TopicPartition, Assigned>,
    /// Whether positions are being looked up.
    looks_up: bool,
    /// Partitions of this consumer whose positions are to be looked up again.
    pending: Vec<TopicPartition>,
    /// Those of them that must begin again, because the client does not read them any more.
    stalled: HashSet<TopicPartition>,
    /// Not before this instant are positions looked up again.
    retry_at: Monotonic,
    /// Why positions could not be looked up.
    problem: Option<String>,
}

impl Consumer {
    pub(super) fn new(
        app: Arc<App>,
        config: config::Kafka,
        map: Option<Arc<JsonMap>>,
        client: BaseConsumer<Listener>,
        tasks: Handle,
    ) -> Self {
        let (sender, events) = channel();
        let client = Arc::new(client);
        Self {
            app,
            config,
            map,
            client,
            tasks,
            events,
            sender,
            assigned: HashMap::new(),
            looks_up: false,
            pending: Vec::new(),
            stalled: HashSet::new(),
            retry_at: Monotonic::now(),
            problem: None,
        }
    }

    /// Reads until the server stops or the client fails for good.
    pub(super) fn run(mut self) {
        let (mut committed_at, mut resumed_at) = (Monotonic::now(), Monotonic::now());
        while !self.app.stopping.is_cancelled() {
            let client = Arc::clone(&self.client);
            match client.poll(POLL) {
                Some(Ok(message)) => self.take(&message),
                Some(Err(KafkaError::MessageConsumptionFatal(code))) => {
                    tracing::error!(code = %code, "the Kafka client has failed for good: no topic is read any more");
                    self.app.ingestion.note(Some(format!("no topic is read: {code}")));
                    break;
                }
                // The client does not say which partition it is, so all are compared with their topics.
                Some(Err(KafkaError::MessageConsumption(rdkafka::error::RDKafkaErrorCode::AutoOffsetReset))) => {
                    let read = self.assigned.iter().filter(|(_, it)| !it.is_stopped);
                    let read: Vec<TopicPartition> = read.map(|(at, _)| at.clone()).collect();
                    self.stalled.extend(read.iter().cloned());
                    self.pending.extend(read);
                }
                Some(Err(error)) => tracing::debug!(error = %error, "the Kafka client reports an error"),
                None => {}
            }
            let revoked = std::mem::take(&mut *client.context().revoked.lock());
            counter!(metrics::INGEST_REBALANCES).increment(u64::from(!revoked.is_empty()));
            for at in &revoked {
                self.pending.retain(|pending| pending != at);
                self.stalled.remove(at);
                self.give_up(at);
            }
            while let Ok(event) = self.events.try_recv() {
                self.handle(event);
            }
            if resumed_at.elapsed() >= RESUME_PERIOD {
                resumed_at = Monotonic::now();
                self.watch_resumes();
            }
            if !self.looks_up && Monotonic::now() >= self.retry_at {
                let assigned = client.context().assigned.lock().clone();
                match assigned {
                    Some(assigned) => self.look_up(assigned),
                    None if !self.pending.is_empty() => {
                        let pending = std::mem::take(&mut self.pending);
                        self.look_up(pending);
                    }
                    None => {}
                }
            }
            if committed_at.elapsed() >= COMMIT_PERIOD {
                committed_at = Monotonic::now();
                self.commit(CommitMode::Async);
                self.observe();
                let problem = client.context().trouble.problem();
                let problem = problem.or_else(|| self.problem.clone()).or_else(|| self.stopped_partitions());
                self.app.ingestion.note(problem);
            }
        }
        self.end();
    }

    /// Hands a message to its partition.
    fn take(&mut self, message: &BorrowedMessage<'_>) {
        let at = (message.topic().to_owned(), message.partition());
        // Messages that were fetched before their partition was revoked or stopped are dropped.
        let is_read = |assigned: &&mut Assigned| !assigned.is_stopped && assigned.is_known;
        let Some(assigned) = self.assigned.get_mut(&at).filter(is_read) else { return };
        let message = owned(message);
        assigned.sent_at = message.sent_at;
        if let Some((offset, hash)) = assigned.compare.take()
            && message.offset == offset
        {
            if message.hash() != hash {
                self.stop(&at, Stop::OtherTopic);
            }
            return;
        }
        assigned.waiting += 1;
        assigned.waiting_bytes += message.bytes();
        // Usually, the task ends only when the partition is given up or has stopped.
        if assigned.messages.send(message).is_err() && self.stalled.insert(at.clone()) {
            self.pending.push(at.clone());
        }
        self.pause_if_full(&at);
    }

    fn pause_if_full(&mut self, at: &TopicPartition) {
        let share = self.config.buffer_bytes / self.assigned.len().max(1);
        let Some(assigned) = self.assigned.get_mut(at) else { return };
        let is_full = assigned.waiting_bytes > share || assigned.waiting > MAX_IN_MEMORY;
        let is_low = assigned.waiting_bytes <= share / 2 && assigned.waiting <= MAX_IN_MEMORY / 2;
        if is_full && !assigned.is_paused {
            assigned.is_paused = true;
            counter!(metrics::INGEST_PAUSES).increment(1);
            told(self.client.pause(&list([(at, Offset::Invalid)])), "paused");
        } else if is_low && assigned.is_paused && !assigned.is_stopped {
            assigned.is_paused = false;
            told(self.client.resume(&list([(at, Offset::Invalid)])), "resumed");
        }
    }

    /// Looks up where the partitions begin, in a task of its own.
    fn look_up(&mut self, mut partitions: Vec<TopicPartition>) {
        self.looks_up = true;
        partitions.sort_unstable();
        partitions.dedup();
        let (app, client, group) = (Arc::clone(&self.app), Arc::clone(&self.client), self.config.group.clone());
        let sender = self.sender.clone();
        self.tasks.spawn(async move {
            let event = match beginnings(&app, &client, &group, &partitions).await {
                Ok(found) => Event::Begin(found),
                Err(reason) => Event::Failed(partitions, reason),
            };
            drop(client);
            // The thread has ended if it does not listen any more.
            let _ = sender.send(event);
        });
    }

    /// Notes that positions could not be looked up. Those of an assignment are looked up again as long as it stands.
    fn retry(&mut self, partitions: impl IntoIterator<Item = TopicPartition>, reason: &str) {
        tracing::warn!(reason, "the positions of partitions could not be looked up: this is tried again");
        self.pending.extend(partitions);
        self.retry_at = Monotonic::now() + LOOK_UP_PAUSE;
        self.problem = Some(format!("the positions of partitions cannot be looked up: {reason}"));
    }

    /// Reads how often each position has been set by hand, in a task of its own.
    fn watch_resumes(&self) {
        let (app, group, sender) = (Arc::clone(&self.app), self.config.group.clone(), self.sender.clone());
        self.tasks.spawn(async move {
            // After a failure, the next one reads it.
            if let Ok(positions) = position::load(&app, &group).await {
                let resumes = positions.into_iter().map(|(at, position)| (at, position.resumes)).collect();
                let _ = sender.send(Event::Resumes(resumes));
            }
        });
    }

    /// Says that partitions are not read any more, for `/readyz`.
    fn stopped_partitions(&self) -> Option<String> {
        let stopped = self.assigned.values().filter(|assigned| assigned.is_stopped).count();
        (stopped > 0).then(|| format!("{stopped} partitions have stopped: see `windfall ingest resume`"))
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Failed(partitions, reason) => {
                self.looks_up = false;
                let is_assignment = self.client.context().assigned.lock().is_some();
                self.retry(if is_assignment { Vec::new() } else { partitions }, &reason);
            }
            Event::Begin(beginnings) => self.found(beginnings),
            Event::Resumes(known) => {
                let is_newer = |(at, resumes): &(TopicPartition, i64)| {
                    self.assigned.get(at).is_some_and(|assigned| assigned.resumes < *resumes)
                };
                let resumed: Vec<_> = known.into_iter().filter(is_newer).map(|(at, _)| at).collect();
                self.pending.extend(resumed);
            }
            Event::Partition(at, report) => self.note(&at, report),
        }
    }

    /// Reads the partitions whose positions were looked up.
    fn found(&mut self, beginnings: Vec<Beginning>) {
        self.looks_up = false;
        self.problem = None;
        let unknown = beginnings.iter().filter(|it| it.start == Start::Unknown).map(|it| it.at.clone());
        let unknown: Vec<TopicPartition> = unknown.collect();
        if let Some((topic, partition)) = unknown.first() {
            let reason = format!("the brokers do not say what partition {partition} of {topic} has");
            self.retry(unknown, &reason);
        }
        let wanted = self.client.context().assigned.lock().take();
        let Some(wanted) = wanted else { return self.begin_again(beginnings) };
        if wanted.iter().all(|at| beginnings.iter().any(|it| it.at == *at)) {
            let (new, others) = beginnings.into_iter().partition(|it: &Beginning| wanted.contains(&it.at));
            counter!(metrics::INGEST_REBALANCES).increment(u64::from(!wanted.is_empty()));
            self.begin(new);
            self.begin_again(others);
        } else {
            // The group has assigned more in the meantime.
            *self.client.context().assigned.lock() = Some(wanted);
            self.pending.extend(beginnings.into_iter().map(|it| it.at));
        }
    }

    /// Reads partitions that the group has just assigned.
    fn begin(&mut self, beginnings: Vec<Beginning>) {
        let offsets = beginnings.iter().map(|it| (&it.at, first(&it.start)));
        if let Err(error) = self.client.incremental_assign(&list(offsets)) {
            // The client still waits to be told.
            let partitions = beginnings.into_iter().map(|it| it.at);
            self.client.context().assigned.lock().get_or_insert_default().extend(partitions);
            self.retry([], &format!("the client does not read what the group has assigned: {error}"));
            return;
        }
        for Beginning { at, start, resumes } in beginnings {
            self.spawn(at, &start, resumes);
        }
    }

    /// Reads partitions again that this consumer has already: those that were resumed, and those that stand still. The others go on,
    /// unless something in their topic stops them.
    fn begin_again(&mut self, beginnings: Vec<Beginning>) {
        for Beginning { at, start, resumes } in beginnings {
            let stands_still = self.stalled.remove(&at);
            let Some(assigned) = self.assigned.get(&at) else { continue };
            let was_resumed = assigned.resumes < resumes && start != Start::Stopped;
            let is_stopped = assigned.is_stopped && !was_resumed;
            if start == Start::Unknown {
                // It is pending again.
                if stands_still {
                    self.stalled.insert(at);
                }
            } else if was_resumed || (!is_stopped && (stands_still || !assigned.is_known)) {
                self.give_up(&at);
                told(self.client.incremental_unassign(&list([(&at, Offset::Invalid)])), "given up");
                self.begin(vec![Beginning { at, start, resumes }]);
            } else if let (Start::Stop(stop), false) = (start, is_stopped) {
                self.stop(&at, stop);
            }
        }
    }

    fn spawn(&mut self, at: TopicPartition, start: &Start, resumes: i64) {
        let (messages, queue) = unbounded_channel();
        let revoked = CancellationToken::new();
        let compare = match start {
            Start::Compare { offset, hash } => Some((*offset, hash.clone())),
            _ => None,
        };
        let next = match start {
            Start::At(offset) => Some(*offset),
            Start::Compare { offset, .. } => Some(offset + 1),
            _ => None,
        };
        let assigned = Assigned {
            messages,
            revoked: revoked.clone(),
            resumes,
            compare,
            waiting: 0,
            waiting_bytes: 0,
            is_paused: false,
            is_stopped: false,
            is_known: *start != Start::Unknown,
            next,
            is_committed: false,
            sent_at: None,
        };
        let partition =
            Partition { app: Arc::clone(&self.app), place: self.place(&at), resumes, map: self.map.clone(), revoked };
        let (sender, of) = (self.sender.clone(), at.clone());
        // The thread has ended if it does not listen any more.
        let report = move |report| drop(sender.send(Event::Partition(of.clone(), report)));
        self.tasks.spawn(partition.run(queue, report));
        self.assigned.insert(at.clone(), assigned);
        match start {
            Start::Stop(stop) => self.stop(&at, *stop),
            Start::Stopped => self.silence(&at, "stopped"),
            Start::Unknown => told(self.client.pause(&list([(&at, Offset::Invalid)])), "paused"),
            Start::At(_) | Start::Compare { .. } => {
                // It may have been paused when this consumer had it before.
                told(self.client.resume(&list([(&at, Offset::Invalid)])), "resumed");
                gauge!(metrics::INGEST_STOPPED, "topic" => at.0, "partition" => at.1.to_string()).set(0);
            }
        }
    }

    fn place(&self, (topic, partition): &TopicPartition) -> Place {
        Place { group: self.config.group.clone(), topic: topic.clone(), partition: *partition }
    }

    fn note(&mut self, at: &TopicPartition, report: Report) {
        let Some(assigned) = self.assigned.get_mut(at) else { return };
        match report {
            Report::Freed { messages, bytes } => {
                assigned.waiting = assigned.waiting.saturating_sub(messages);
                assigned.waiting_bytes = assigned.waiting_bytes.saturating_sub(bytes);
                self.pause_if_full(at);
            }
            Report::Saved { offset } => {
                assigned.next = Some(offset + 1);
                assigned.is_committed = false;
            }
            Report::Stopped(stop) => self.silence(at, stop.name()),
        }
    }

    /// Stops a partition, for a reason that lies in its topic.
    fn stop(&mut self, at: &TopicPartition, stop: Stop) {
        self.silence(at, stop.name());
        let (app, place) = (Arc::clone(&self.app), self.place(at));
        let resumes = self.assigned.get(at).map_or(0, |assigned| assigned.resumes);
        self.tasks.spawn(async move {
            while let Err(error) = position::stop(&app, &place, resumes, stop).await {
                tracing::warn!(error = %error, "a stopped partition could not be recorded");
                tokio::select! {
                    () = app.stopping.cancelled() => return,
                    () = tokio::time::sleep(LOOK_UP_PAUSE) => {}
                }
            }
        });
    }

    /// Reads a partition no more, and says so.
    fn silence(&mut self, at: &TopicPartition, reason: &'static str) {
        let Some(assigned) = self.assigned.get_mut(at) else { return };
        assigned.is_stopped = true;
        assigned.is_paused = true;
        assigned.revoked.cancel();
        told(self.client.pause(&list([(at, Offset::Invalid)])), "paused");
        let (topic, partition) = at;
        gauge!(metrics::INGEST_STOPPED, "topic" => topic.clone(), "partition" => partition.to_string()).set(1);
        tracing::error!(
            topic,
            partition,
            reason,
            "a partition is not read any more: `windfall ingest resume {topic} {partition}` lets it go on"
        );
    }

    /// Ends the task of a partition that this consumer does not have any more.
    fn give_up(&mut self, at: &TopicPartition) {
        let Some(assigned) = self.assigned.remove(at) else { return };
        assigned.revoked.cancel();
        let labels = || [("topic", at.0.clone()), ("partition", at.1.to_string())];
        // Another consumer reports them from now on.
        gauge!(metrics::INGEST_STOPPED, &labels()).set(0);
        gauge!(metrics::INGEST_LAG_MESSAGES, &labels()).set(0);
        gauge!(metrics::INGEST_LAG_SECONDS, &labels()).set(0);
    }

    /// Commits to Kafka what is done, for tools that show lag. Windfall itself does not read it.
    fn commit(&mut self, mode: CommitMode) {
        let done = self.assigned.iter().filter(|(_, it)| !it.is_committed);
        let offsets: Vec<_> = done.filter_map(|(at, it)| Some((at, Offset::Offset(it.next?)))).collect();
        if offsets.is_empty() {
            return;
        }
        if let Err(error) = self.client.commit(&list(offsets), mode) {
            tracing::debug!(error = %error, "offsets were not committed to Kafka");
        }
        for assigned in self.assigned.values_mut() {
            assigned.is_committed = true;
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "figures for people, exact up to 2^53")]
    fn observe(&self) {
        let now = self.app.clock.now();
        let ends = self.client.context().ends.lock();
        for (at, assigned) in &self.assigned {
            let labels = || [("topic", at.0.clone()), ("partition", at.1.to_string())];
            let lag = ends.get(at).zip(assigned.next).map_or(0, |(end, next)| end.saturating_sub(next).max(0));
            gauge!(metrics::INGEST_LAG_MESSAGES, &labels()).set(lag as f64);
            let age = assigned.sent_at.map_or(0, |sent_at| now.0.saturating_sub(sent_at.0).max(0));
            gauge!(metrics::INGEST_LAG_SECONDS, &labels()).set(if lag > 0 { age as f64 / 1e6 } else { 0.0 });
        }
    }

    /// Finishes what is in a commit, and leaves the group.
    fn end(mut self) {
        // From now on, the client answers itself what the group assigns.
        self.client.context().closing.store(true, Ordering::SeqCst);
        for assigned in self.assigned.values() {
            assigned.revoked.cancel();
        }
        // The tasks report what they have saved, and drop their senders then.
        drop(std::mem::replace(&mut self.sender, channel().0));
        let late = Monotonic::now() + COMMIT_PERIOD * 5;
        while let Ok(event) = self.events.recv_timeout(late.saturating_duration_since(Monotonic::now())) {
            if let Event::Partition(at, report) = event {
                self.note(&at, report);
            }
        }
        self.commit(CommitMode::Sync);
        // A client that waits to be told what to read does not leave.
        if let Some(assigned) = self.client.context().assigned.lock().take() {
            told(self.client.incremental_assign(&list(assigned.iter().map(|at| (at, Offset::End)))), "assigned");
        }
    }
}

/// The offset at which the client begins to fetch. A stopped partition is paused at once.
fn first(start: &Start) -> Offset {
    match start {
        Start::At(offset) | Start::Compare { offset, .. } => Offset::Offset(*offset),
        Start::Stop(_) | Start::Stopped | Start::Unknown => Offset::End,
    }
}

fn list<'a>(partitions: impl IntoIterator<Item = (&'a TopicPartition, Offset)>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for ((topic, partition), offset) in partitions {
        // Fails only for an offset that cannot be written, and all of these can.
        let _ = list.add_partition_offset(topic, *partition, offset);
    }
    list
}

/// Looks up the positions of partitions, and asks the brokers what their topics have.
async fn beginnings(
    app: &App,
    client: &Arc<BaseConsumer<Listener>>,
    group: &str,
    partitions: &[TopicPartition],
) -> Result<Vec<Beginning>, String> {
    let mut positions = position::load(app, group).await.map_err(|error: Error| error.to_string())?;
    let (asked, client) = (partitions.to_vec(), Arc::clone(client));
    let ask = move || -> Vec<Option<(i64, i64)>> {
        let watermarks = |(topic, partition): &TopicPartition| {
            let told = client.fetch_watermarks(topic, *partition, WATERMARKS_TIMEOUT);
            told.inspect_err(|error| tracing::debug!(topic, partition, error = %error, "no watermarks")).ok()
        };
        asked.iter().map(watermarks).collect()
    };
    let watermarks = tokio::task::spawn_blocking(ask).await.map_err(|panic| panic.to_string())?;
    let beginning = |(at, watermarks): (&TopicPartition, Option<(i64, i64)>)| {
        let position: Option<IngestPosition> = positions.remove(at);
        let resumes = position.as_ref().map_or(0, |position| position.resumes);
        let start = watermarks.map_or(Start::Unknown, |(low, high)| start(position.as_ref(), low, high));
        Beginning { at: at.clone(), start, resumes }
    };
    Ok(partitions.iter().zip(watermarks).map(beginning).collect())
}

/// Copies a message out of the memory of the client.
pub(super) fn owned(message: &BorrowedMessage<'_>) -> Message {
    let headers = message.headers().map(|headers| {
        headers.iter().map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect()
    });
    Message {
        topic: message.topic().into(),
        partition: message.partition(),
        offset: message.offset(),
        key: message.key().map(<[u8]>::to_vec),
        headers: headers.unwrap_or_default(),
        value: message.payload().map(<[u8]>::to_vec),
        sent_at: message.timestamp().to_millis().map(|millis| Instant(millis.saturating_mul(1_000))),
    }
}
