//! librdkafka's mock cluster: brokers inside this process, reachable through localhost ports by other processes too.
//!
//! With `kafka`, the only place that names rdkafka, because the mock lives nowhere else. It keeps what is produced in
//! memory (5 MiB or 100,000 records a partition), has real groups and offsets, and knows neither CreateTopics nor
//! ListGroups; a topic that a client asks for comes into being with four partitions.

use super::{Backing, KafkaKind, StartError, TestKafka};
use crate::kafka::KafkaConfig;
use rdkafka::mocking::MockCluster;
use std::sync::mpsc;
use std::thread::JoinHandle;
use tokio::sync::oneshot;

/// Enough to move a coordinator or take a broker away.
const BROKERS: i32 = 3;

/// The mock cluster and the thread that owns it: its handle must not change threads.
pub(super) struct Mock {
    commands: Option<mpsc::Sender<CreateTopic>>,
    owner: Option<JoinHandle<()>>,
}

struct CreateTopic {
    name: String,
    partitions: i32,
    done: oneshot::Sender<Result<(), String>>,
}

pub(super) fn start() -> Result<TestKafka, StartError> {
    let (commands, received) = mpsc::channel();
    let (ready, started) = mpsc::channel();
    let owner = std::thread::Builder::new()
        .name("mock-kafka".to_owned())
        .spawn(move || own(&ready, &received))
        .map_err(|error| StartError::mock(error.to_string()))?;
    let brokers = started
        .recv()
        .map_err(|error| StartError::mock(error.to_string()))?
        .map_err(StartError::mock)?;
    Ok(TestKafka {
        kind: KafkaKind::Mock,
        description: format!("librdkafka's mock cluster in this process, at {brokers}"),
        config: KafkaConfig::new(brokers),
        backing: Backing::Mock(Mock {
            commands: Some(commands),
            owner: Some(owner),
        }),
    })
}

/// Makes the cluster, then serves commands until the last sender is gone.
fn own(ready: &mpsc::Sender<Result<String, String>>, commands: &mpsc::Receiver<CreateTopic>) {
    let made = MockCluster::new(BROKERS).map_err(|error| error.to_string());
    let cluster = match made {
        Ok(cluster) => cluster,
        Err(error) => {
            // Whoever started us waits for exactly one answer; without it there is nobody left to tell.
            let _ = ready.send(Err(error));
            return;
        }
    };
    if ready.send(Ok(cluster.bootstrap_servers())).is_err() {
        return;
    }
    for command in commands {
        let made = cluster.create_topic(&command.name, command.partitions, 1);
        // A caller that gave up waiting needs no answer.
        let _ = command.done.send(made.map_err(|error| error.to_string()));
    }
}

impl Mock {
    pub(super) async fn create_topic(&self, name: &str, partitions: i32) -> Result<(), StartError> {
        let (done, answer) = oneshot::channel();
        let command = CreateTopic {
            name: name.to_owned(),
            partitions,
            done,
        };
        let sent = self
            .commands
            .as_ref()
            .is_some_and(|commands| commands.send(command).is_ok());
        if !sent {
            return Err(StartError::mock("its thread has ended"));
        }
        answer
            .await
            .map_err(|_| StartError::mock("its thread ended over a command"))?
            .map_err(|error| StartError::mock(format!("cannot create the topic {name}: {error}")))
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        drop(self.commands.take());
        if let Some(owner) = self.owner.take()
            && owner.join().is_err()
        {
            tracing::warn!("the mock cluster's thread panicked");
        }
    }
}
