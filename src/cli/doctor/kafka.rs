//! Kafka: the brokers, the topics of the configuration, and whether the nodes keep up.

use std::time::Duration;

use tokio::time::{Instant as Monotonic, sleep, timeout};

use super::database::Examined;
use super::finding::{Code, Finding};
use super::units::{count, duration};
use crate::app::clock::Clock;
use crate::app::ingest_position::of_group;
use crate::config::{Config, Kafka};
use crate::engine::time::Instant;
use crate::ingest::cluster::{
    Cluster, Content, Layout, Positions, Role, Settings, Topic, examine as ask, next_offsets,
};
use crate::ingest::topics::{HAS_CLIENT, check_build};

/// How long the database may take to return the positions.
const POSITIONS_TIMEOUT: Duration = Duration::from_secs(5);
/// For how long positions are observed, if messages wait to be read.
const OBSERVED: Duration = Duration::from_secs(3);
/// The outage after which the nodes should catch up without losing anything.
const OUTAGE: Duration = Duration::from_hours(6);
/// How long messages should be kept at least: nobody may be there for a weekend.
const WEEKEND: Duration = Duration::from_hours(72);
/// How old the next message may be.
const LAG: Duration = Duration::from_secs(60);
const SUBJECT: &str = "`kafka.brokers`";

/// How many messages per second all nodes record together.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Rate {
    per_second: f64,
    /// Whether it was measured. Otherwise, it was given or is the default.
    is_measured: bool,
}

/// Asks the brokers, and decides. `rate` is used if it cannot be measured.
pub(super) async fn examine(config: &Config, examined: Option<&Examined>, rate: f64) -> Vec<Finding> {
    let Some(kafka) = &config.kafka else { return Vec::new() };
    if let Some(finding) = missing_client(kafka, HAS_CLIENT) {
        return vec![finding];
    }
    let now = examined.map_or_else(|| Clock::System.now(), |examined| examined.clock.now());
    let before = positions(examined, kafka).await;
    let cluster = match ask(kafka, topics(kafka), before, now).await {
        Ok(cluster) => cluster,
        Err(problem) => return vec![unreachable(&problem)],
    };
    let measured = if unread(&cluster) > 0 { measure(&cluster, examined, kafka).await } else { None };
    let rate = measured.unwrap_or(Rate { per_second: rate, is_measured: false });
    decide(&cluster, examined.map_or(0, |examined| examined.present.len()), rate, now)
}

/// The topics of the configuration.
fn topics(config: &Kafka) -> Vec<(String, Role)> {
    let facts = config.facts_topics.iter().map(|topic| (topic.clone(), Role::Facts));
    let events = config.events_topic.iter().map(|topic| (topic.clone(), Role::Events));
    let balances = config.balances_topic.iter().map(|topic| (topic.clone(), Role::Balances));
    facts.chain(events).chain(balances).collect()
}

async fn positions(examined: Option<&Examined>, config: &Kafka) -> Option<Positions> {
    let loaded = timeout(POSITIONS_TIMEOUT, of_group(examined?.database.read(), &config.group)).await;
    loaded.ok()?.ok().map(next_offsets)
}

/// Observes how the positions move. Returns `None` if the nodes read nothing, or if they reached the end, so that they had to wait.
async fn measure(cluster: &Cluster, examined: Option<&Examined>, config: &Kafka) -> Option<Rate> {
    let before = positions(examined, config).await?;
    let began = Monotonic::now();
    sleep(OBSERVED).await;
    let after = positions(examined, config).await?;
    progress(cluster, &before, &after, began.elapsed())
}

fn progress(cluster: &Cluster, before: &Positions, after: &Positions, elapsed: Duration) -> Option<Rate> {
    let (mut recorded, mut waits) = (0_i64, false);
    for (topic, id, content) in contents(cluster) {
        let at = (topic.name.clone(), id);
        let of = |positions: &Positions| positions.get(&at).copied().unwrap_or(content.low);
        recorded = recorded.saturating_add(of(after).saturating_sub(of(before)).max(0));
        waits |= of(after) < content.high;
    }
    (recorded > 0 && waits).then(|| Rate { per_second: figure(recorded) / elapsed.as_secs_f64(), is_measured: true })
}

fn contents(cluster: &Cluster) -> impl Iterator<Item = (&Topic, i32, &Content)> {
    cluster.topics.iter().flat_map(|topic| {
        let partitions = topic.layout.iter().flat_map(|layout| &layout.partitions);
        partitions.filter_map(move |partition| Some((topic, partition.id, partition.content.as_ref()?)))
    })
}

fn unread(cluster: &Cluster) -> i64 {
    contents(cluster).map(|(_, _, content)| content.unread()).fold(0, i64::saturating_add)
}

#[expect(clippy::cast_precision_loss, reason = "figures for people, exact up to 2^53")]
fn figure(number: i64) -> f64 {
    number as f64
}

fn missing_client(config: &Kafka, has_client: bool) -> Option<Finding> {
    let error = check_build(Some(config), has_client).err()?;
    let advice = format!("`serve` does not start: {error}");
    Some(Finding::problem(Code::KafkaClientMissing, SUBJECT, "this program cannot use Kafka", advice))
}

fn unreachable(problem: &str) -> Finding {
    let advice = "No topic is read meanwhile. Nodes go on by themselves once the brokers answer; another configuration takes a restart.";
    Finding::problem(Code::KafkaUnreachable, SUBJECT, problem, advice)
}

/// Decides about a cluster. `programs` is the number of programs on the database.
fn decide(cluster: &Cluster, programs: usize, rate: Rate, now: Instant) -> Vec<Finding> {
    let mut findings = brokers(cluster);
    let arrivals = arrivals(cluster, now);
    for topic in &cluster.topics {
        let Some(layout) = &topic.layout else {
            findings.push(missing(topic));
            continue;
        };
        findings.extend(replicas(topic, layout, cluster.brokers));
        findings.extend(leaders(topic, layout));
        if let Some(settings) = &layout.settings {
            findings.extend(min_insync_replicas(topic, layout, settings));
            findings.extend(cleanup(topic, settings));
        }
        if topic.role == Role::Facts {
            findings.extend(partitions(topic, layout, programs));
            findings.extend(lag(topic, layout, now));
            findings.extend(retention(topic, layout, catch_up(arrivals, rate), now));
        }
    }
    findings.extend(capacity(arrivals, rate));
    findings
}

/// What the brokers do by themselves.
fn brokers(cluster: &Cluster) -> Vec<Finding> {
    let mut findings = Vec::new();
    if cluster.brokers == 1 {
        findings.push(Finding::advice(
            Code::KafkaReplication,
            SUBJECT,
            "the cluster has 1 broker",
            "Run three brokers or more: with one, facts that are not read yet are lost with its disk, and nothing is read while it is down.",
        ));
    }
    if cluster.makes_topics == Some(true) {
        findings.push(Finding::advice(
            Code::KafkaAutoCreateTopics,
            SUBJECT,
            "`auto.create.topics.enable` is true",
            "Set it to false: a producer with a misspelt name makes a topic that nobody reads, with the default partitions and replicas.",
        ));
    }
    let layouts = cluster.topics.iter().filter_map(|topic| topic.layout.as_ref());
    if cluster.makes_topics.is_none() || layouts.into_iter().any(|layout| layout.settings.is_none()) {
        findings.push(Finding::advice(
            Code::KafkaSettingsUnknown,
            SUBJECT,
            "the user may not read the settings of the brokers or of a topic",
            "Give the user the right DescribeConfigs, or check the settings by hand: some of the defaults lose messages.",
        ));
    }
    findings
}

fn missing(topic: &Topic) -> Finding {
    Finding::problem(
        Code::KafkaTopicMissing,
        &topic.name,
        "the topic does not exist, or the user may not see it",
        "Create the topic, correct its name in the configuration, or give the user the right to describe it.",
    )
}

/// A cluster of one broker is told once, and not for each topic.
fn replicas(topic: &Topic, layout: &Layout, brokers: usize) -> Option<Finding> {
    if brokers < 2 || layout.replicas > 2 {
        return None;
    }
    let copies = if layout.replicas == 1 { "1 replica".to_owned() } else { format!("{} replicas", layout.replicas) };
    let measured = format!("the topic has {copies} on {brokers} brokers");
    Some(if layout.replicas < 2 {
        let advice = "Give the topic three replicas: with one, messages are lost with the disk of a broker.";
        Finding::problem(Code::KafkaReplication, &topic.name, measured, advice)
    } else {
        let advice = "Give the topic three replicas: with two, either a broker that is down stops producers, or one disk can lose messages.";
        Finding::advice(Code::KafkaReplication, &topic.name, measured, advice)
    })
}

fn leaders(topic: &Topic, layout: &Layout) -> Option<Finding> {
    let offline = layout.partitions.iter().filter(|partition| !partition.has_leader).count();
    (offline > 0).then(|| {
        Finding::problem(
            Code::KafkaPartitionOffline,
            &topic.name,
            format!("{offline} of {} have no leader", count(layout.partitions.len() as u64, "partition")),
            "Start the brokers that have their replicas: until then, these partitions take and return no messages.",
        )
    })
}

/// With two replicas, no value is good. That is told by [`replicas`].
fn min_insync_replicas(topic: &Topic, layout: &Layout, settings: &Settings) -> Option<Finding> {
    let (least, replicas) = (settings.min_insync_replicas, layout.replicas);
    let measured = format!("`min.insync.replicas` is {least}, with {}", count(replicas as u64, "replica"));
    let advice = if least > replicas {
        format!("Set it to {} at most: no producer that waits for all replicas can send.", replicas.max(1))
    } else if replicas < 3 {
        return None;
    } else if least == 1 {
        "Set it to 2: with 1, a message that was acknowledged can be on one disk only, and is lost with it.".to_owned()
    } else if least == replicas {
        format!("Set it to {}: otherwise one broker that is down stops all producers.", replicas - 1)
    } else {
        return None;
    };
    Some(Finding::problem(Code::KafkaMinInsyncReplicas, &topic.name, measured, advice))
}

fn cleanup(topic: &Topic, settings: &Settings) -> Vec<Finding> {
    let mut findings = Vec::new();
    if settings.elects_unclean_leaders {
        findings.push(Finding::problem(
            Code::KafkaUncleanLeaderElection,
            &topic.name,
            "`unclean.leader.election.enable` is true",
            "Set it to false: a replica that lacks messages may become the leader, and the others then delete theirs.",
        ));
    }
    let advice = match (topic.role, settings.is_compacted) {
        (Role::Facts | Role::Events, true) => {
            "Set `cleanup.policy` to delete: of the messages with one key, which are those of a customer, compaction keeps only the last."
        }
        (Role::Balances, false) => {
            "Set `cleanup.policy` to compact: otherwise the balances of customers who buy seldom disappear."
        }
        (Role::Facts | Role::Events, false) | (Role::Balances, true) => return findings,
    };
    let measured = format!("`cleanup.policy` is {}", if settings.is_compacted { "compact" } else { "delete" });
    findings.push(Finding::problem(Code::KafkaCompaction, &topic.name, measured, advice));
    findings
}

fn partitions(topic: &Topic, layout: &Layout, programs: usize) -> Option<Finding> {
    let partitions = layout.partitions.len();
    if partitions > 1 && partitions >= programs {
        return None;
    }
    let measured = format!(
        "the topic has {}, and {} ran within the last minute",
        count(partitions as u64, "partition"),
        count(programs as u64, "program")
    );
    let advice = "Make new topics with several partitions, at least one for each node: each partition is read by one node. More partitions \
        in a topic that has messages change which partition a customer has, so its facts may be read out of order.";
    Some(Finding::advice(Code::KafkaPartitions, &topic.name, measured, advice))
}

fn lag(topic: &Topic, layout: &Layout, now: Instant) -> Option<Finding> {
    let contents = || layout.partitions.iter().filter_map(|partition| partition.content.as_ref());
    let oldest = contents().filter_map(|content| content.unread_at).min()?;
    let age = since(oldest, now);
    if age <= LAG {
        return None;
    }
    let unread = contents().map(Content::unread).fold(0, i64::saturating_add);
    let measured = format!("{} not recorded, the first for {}", count(unread.unsigned_abs(), "message"), duration(age));
    let advice = "Check that a node runs and that no partition has stopped. If the nodes read as fast as they can, `windfall_ingest_batch_messages` \
        and the database show what holds them up.";
    Some(Finding::problem(Code::KafkaLag, &topic.name, measured, advice))
}

fn since(earlier: Instant, now: Instant) -> Duration {
    Duration::from_micros(u64::try_from(now.minus(earlier.0).0).unwrap_or(0))
}

/// How many messages per second arrive in all topics of facts.
fn arrivals(cluster: &Cluster, now: Instant) -> f64 {
    let of = |content: &Content| {
        let (offset, at) = content.counted_from?;
        // Some messages of one second are no rate.
        let seconds = since(at, now).as_secs_f64().max(1.0);
        Some(figure(content.high.saturating_sub(offset).max(0)) / seconds)
    };
    contents(cluster).filter_map(|(_, _, content)| of(content)).sum()
}

/// How long it takes to read what arrives in [`OUTAGE`], while more arrives. `None`: for ever.
fn catch_up(arrivals: f64, rate: Rate) -> Option<Duration> {
    let left = rate.per_second - arrivals;
    if arrivals == 0.0 {
        return Some(Duration::ZERO);
    }
    if left <= 0.0 {
        return None;
    }
    Duration::try_from_secs_f64(arrivals * OUTAGE.as_secs_f64() / left).ok()
}

/// Returns for how long the messages of a topic are kept. `None`: for ever. A limit on the size shows only in what is left.
fn kept_for(layout: &Layout, settings: &Settings, now: Instant) -> Option<Duration> {
    let by_age = settings.retention_ms.map(Duration::from_millis);
    let contents = layout.partitions.iter().filter_map(|partition| partition.content.as_ref());
    let trimmed = contents.filter(|content| settings.retention_bytes.is_some() && content.low > 0);
    let by_size = trimmed.filter_map(|content| Some(since(content.first_at?, now))).min();
    by_age.into_iter().chain(by_size).min()
}

/// What is deleted before it is read is lost. The nodes have read everything of an outage when they have caught up, so nothing is lost
/// that is kept for the outage and that time.
fn retention(topic: &Topic, layout: &Layout, catch_up: Option<Duration>, now: Instant) -> Option<Finding> {
    let kept_for = kept_for(layout, layout.settings.as_ref()?, now)?;
    let needed = OUTAGE + catch_up.unwrap_or(Duration::ZERO);
    let reading =
        catch_up.map_or("the nodes never catch up".to_owned(), |time| format!("they need {}", duration(time)));
    let measured = format!(
        "after {} without a node, {reading}; retention keeps messages for {}",
        duration(OUTAGE),
        duration(kept_for)
    );
    let advice = "Raise `retention.ms` and `retention.bytes`: what is deleted before it is read is lost, and its partition stops.";
    if kept_for < needed {
        Some(Finding::problem(Code::KafkaRetention, &topic.name, measured, advice))
    } else if kept_for < WEEKEND {
        let advice = format!(
            "{advice} Keep messages for at least {}, so that a weekend without an operator loses nothing.",
            duration(WEEKEND)
        );
        Some(Finding::advice(Code::KafkaRetention, &topic.name, measured, advice))
    } else {
        None
    }
}

fn capacity(arrivals: f64, rate: Rate) -> Option<Finding> {
    if catch_up(arrivals, rate).is_some() {
        return None;
    }
    let per_second = rate.per_second;
    let measured = format!("{arrivals:.0} messages a second arrive on average");
    Some(if rate.is_measured {
        let measured = format!("{measured}, and the nodes record {per_second:.0} a second");
        let advice =
            "Add nodes (up to the number of partitions) or a faster database: the nodes fall behind more and more.";
        Finding::problem(Code::KafkaCatchUp, "topics", measured, advice)
    } else {
        let measured = format!("{measured}, and the nodes are assumed to record {per_second:.0} a second (`--rate`)");
        let advice = "Measure how many messages the nodes record while they read as fast as they can (`windfall_ingest_messages_total`), and give \
            that figure with `--rate`. If it is too low, the nodes never catch up after an outage.";
        Finding::advice(Code::KafkaCatchUp, "topics", measured, advice)
    })
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity::{self, Advice, Problem};
    use super::*;
    use crate::ingest::cluster::Partition;

    const NOW: Instant = Instant(1_800_000_000_000_000);
    const RATE: Rate = Rate { per_second: 1_000.0, is_measured: false };

    fn ago(seconds: i64) -> Instant {
        NOW.minus(seconds * 1_000_000)
    }

    fn content() -> Content {
        Content {
            low: 0,
            high: 86_400,
            next: 86_400,
            first_at: Some(ago(86_400)),
            unread_at: None,
            counted_from: Some((0, ago(86_400))),
        }
    }

    fn settings() -> Settings {
        Settings {
            min_insync_replicas: 2,
            elects_unclean_leaders: false,
            is_compacted: false,
            retention_ms: Some(7 * 86_400_000),
            retention_bytes: None,
        }
    }

    fn layout() -> Layout {
        let partition = |id| Partition { id, has_leader: true, content: Some(content()) };
        Layout { replicas: 3, settings: Some(settings()), partitions: vec![partition(0), partition(1)] }
    }

    fn cluster_of(role: Role, layout: Option<Layout>) -> Cluster {
        let topic = Topic { name: "orders".to_owned(), role, layout };
        Cluster { brokers: 3, makes_topics: Some(false), topics: vec![topic] }
    }

    fn decided(cluster: &Cluster) -> Vec<(Code, Severity)> {
        decide(cluster, 2, RATE, NOW).into_iter().map(|finding| (finding.code, finding.severity)).collect()
    }

    fn with_layout(change: impl FnOnce(&mut Layout)) -> Vec<(Code, Severity)> {
        let mut layout = layout();
        change(&mut layout);
        decided(&cluster_of(Role::Facts, Some(layout)))
    }

    fn with_settings(change: impl FnOnce(&mut Settings)) -> Vec<(Code, Severity)> {
        with_layout(|layout| change(layout.settings.as_mut().unwrap()))
    }

    #[test]
    fn a_good_cluster_is_left_alone() {
        assert_eq!(with_layout(|_| ()), []);
        assert_eq!(decided(&cluster_of(Role::Events, Some(layout()))), []);
    }

    #[test]
    fn a_build_without_the_client_is_told() {
        let config = Kafka::for_tests("127.0.0.1:9092", "orders");
        assert_eq!(missing_client(&config, true), None);
        let finding = missing_client(&config, false).unwrap();
        assert_eq!((finding.code, finding.severity), (Code::KafkaClientMissing, Problem));
        assert!(finding.advice.contains("--features kafka"), "{finding:?}");
    }

    #[test]
    fn brokers_are_several_and_make_no_topics() {
        let good = cluster_of(Role::Facts, Some(layout()));
        let one = Cluster { brokers: 1, ..good.clone() };
        assert_eq!(decided(&one), [(Code::KafkaReplication, Advice)]);
        let makes = |makes_topics| decided(&Cluster { makes_topics, ..good.clone() });
        assert_eq!(makes(Some(true)), [(Code::KafkaAutoCreateTopics, Advice)]);
        assert_eq!(makes(None), [(Code::KafkaSettingsUnknown, Advice)]);
        assert_eq!(with_layout(|layout| layout.settings = None), [(Code::KafkaSettingsUnknown, Advice)]);
        assert_eq!(decided(&cluster_of(Role::Facts, None)), [(Code::KafkaTopicMissing, Problem)]);
    }

    #[test]
    fn messages_are_on_several_disks() {
        let of = |replicas, least| {
            with_layout(|layout| {
                layout.replicas = replicas;
                layout.settings.as_mut().unwrap().min_insync_replicas = least;
            })
        };
        let (replication, insync) = (Code::KafkaReplication, Code::KafkaMinInsyncReplicas);
        assert_eq!(of(1, 1), [(replication, Problem)]);
        assert_eq!(of(1, 2), [(replication, Problem), (insync, Problem)]);
        assert_eq!([of(2, 1), of(2, 2)], [[(replication, Advice)], [(replication, Advice)]]);
        assert_eq!([of(3, 1), of(3, 3), of(3, 4)], [[(insync, Problem)], [(insync, Problem)], [(insync, Problem)]]);
        assert_eq!([of(3, 2), of(5, 2), of(5, 4)], [[], [], []]);
        let offline =
            with_layout(|layout| layout.partitions[1] = Partition { id: 1, has_leader: false, content: None });
        assert_eq!(offline, [(Code::KafkaPartitionOffline, Problem)]);
    }

    #[test]
    fn what_is_kept_depends_on_the_role() {
        let unclean = with_settings(|settings| settings.elects_unclean_leaders = true);
        assert_eq!(unclean, [(Code::KafkaUncleanLeaderElection, Problem)]);
        let compacted = |role, is_compacted| {
            let settings = Some(Settings { is_compacted, ..settings() });
            decided(&cluster_of(role, Some(Layout { settings, ..layout() })))
        };
        let found = [(Code::KafkaCompaction, Problem)];
        assert_eq!([compacted(Role::Facts, true), compacted(Role::Events, true)], [found, found]);
        assert_eq!(compacted(Role::Balances, false), found);
        assert_eq!(compacted(Role::Balances, true), []);
    }

    #[test]
    fn each_node_has_a_partition() {
        let found = [(Code::KafkaPartitions, Advice)];
        assert_eq!(with_layout(|layout| layout.partitions.truncate(1)), found);
        let cluster = cluster_of(Role::Facts, Some(layout()));
        assert_eq!(decide(&cluster, 3, RATE, NOW)[0].code, Code::KafkaPartitions);
    }

    #[test]
    fn a_lag_of_more_than_a_minute_is_told() {
        let unread = |seconds| {
            with_layout(|layout| {
                let content = Content { next: 86_000, unread_at: Some(ago(seconds)), ..content() };
                layout.partitions[0].content = Some(content);
            })
        };
        assert_eq!(unread(60), []);
        assert_eq!(unread(61), [(Code::KafkaLag, Problem)]);
    }

    #[test]
    fn retention_outlasts_an_outage() {
        let hours = |hours: u64| with_settings(|settings| settings.retention_ms = Some(hours * 3_600_000));
        let found = |severity| [(Code::KafkaRetention, severity)];
        assert_eq!(hours(72), []);
        assert_eq!(hours(71), found(Advice));
        assert_eq!(hours(7), found(Advice));
        // One message a second in each partition: catching up takes 43 s.
        let millis = |millis| with_settings(|settings| settings.retention_ms = Some(millis));
        assert_eq!(millis(6 * 3_600_000 + 44_000), found(Advice));
        assert_eq!(millis(6 * 3_600_000 + 43_000), found(Problem));
        assert_eq!(with_settings(|settings| settings.retention_ms = None), []);
        // The size is limited, and the first message that is left is a day old.
        let by_size = |low| {
            with_layout(|layout| {
                layout.settings.as_mut().unwrap().retention_bytes = Some(1);
                layout.partitions[0].content = Some(Content { low, ..content() });
            })
        };
        assert_eq!(by_size(0), []);
        assert_eq!(by_size(1), found(Advice));
    }

    #[test]
    fn nodes_record_more_than_arrives() {
        let rate = |per_second| Rate { per_second, is_measured: true };
        assert_eq!(catch_up(0.0, rate(0.0)), Some(Duration::ZERO));
        assert_eq!(catch_up(100.0, rate(100.0)), None);
        assert_eq!(catch_up(100.0, rate(200.0)), Some(OUTAGE));
        assert_eq!(catch_up(100.0, rate(1_000.0)).map(duration).as_deref(), Some("40 min"));
        assert_eq!(capacity(100.0, rate(101.0)), None);
        assert_eq!(capacity(100.0, rate(100.0)).unwrap().severity, Problem);
        assert_eq!(capacity(100.0, Rate { per_second: 100.0, is_measured: false }).unwrap().severity, Advice);
        let cluster = cluster_of(Role::Facts, Some(layout()));
        assert!((arrivals(&cluster, NOW) - 2.0).abs() < 1e-9);
    }

    #[test]
    fn a_rate_is_measured_while_the_nodes_are_busy() {
        let cluster = cluster_of(Role::Facts, Some(layout()));
        let at = |first, second| -> Positions {
            [(("orders".to_owned(), 0), first), (("orders".to_owned(), 1), second)].into()
        };
        let rate = |before, after| progress(&cluster, &before, &after, Duration::from_secs(2));
        let measured = Rate { per_second: 150.0, is_measured: true };
        assert_eq!(rate(at(0, 0), at(100, 200)), Some(measured));
        assert_eq!(rate(at(5, 5), at(5, 5)), None, "nothing is read");
        assert_eq!(rate(at(0, 0), at(86_400, 86_400)), None, "the nodes had to wait");
        assert_eq!(rate(at(0, 0), at(300, 86_400)).unwrap().per_second, 43_350.0);
    }
}
