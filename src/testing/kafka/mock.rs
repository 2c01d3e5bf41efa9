//! librdkafka's mock cluster: brokers inside this process. Other processes can reach them through
//! localhost ports.
//!
//! Besides `kafka`, the only module that names rdkafka, because the mock exists only there. It
//! keeps records in memory (5 MiB or 100,000 records per partition) and has real groups and
//! offsets. It supports neither CreateTopics nor ListGroups. A topic that a client requests is
//! created with four partitions.
//!
//! One thread creates, uses and drops the cluster, because its handle must not change threads.
//! Others send it commands through a channel, and wait for the answer without blocking a task.

use crate::testing::StartError;
use rdkafka::mocking::MockCluster;
use std::sync::mpsc;
use std::thread::JoinHandle;
use tokio::sync::oneshot;

/// Enough brokers to move a coordinator or remove a broker.
const BROKERS: i32 = 3;

/// The mock cluster and the thread that owns it. Its handle must not change threads.
pub(in crate::testing) struct Mock {
    commands: Option<mpsc::Sender<CreateTopic>>,
    owner: Option<JoinHandle<()>>,
}

/// A command to the thread.
struct CreateTopic {
    name: String,
    partitions: i32,
    done: oneshot::Sender<Result<(), String>>,
}

/// Creates the cluster, then executes commands until the last sender is dropped.
fn run_cluster(
    ready: &mpsc::Sender<Result<String, String>>,
    commands: &mpsc::Receiver<CreateTopic>,
) {
    let made = MockCluster::new(BROKERS).map_err(|error| error.to_string());
    let cluster = match made {
        Ok(cluster) => cluster,
        Err(error) => {
            // The starting thread waits for exactly one answer. If it is gone, the error has no
            // receiver.
            let _ = ready.send(Err(error));
            return;
        }
    };
    if ready.send(Ok(cluster.bootstrap_servers())).is_err() {
        return;
    }
    for command in commands {
        let made = cluster.create_topic(&command.name, command.partitions, 1);
        // A caller that timed out needs no answer.
        let _ = command.done.send(made.map_err(|error| error.to_string()));
    }
}

impl Mock {
    /// Starts a mock cluster. Returns it with its bootstrap servers.
    pub(in crate::testing) fn start() -> Result<(Self, String), StartError> {
        let (commands, received) = mpsc::channel();
        let (ready, started) = mpsc::channel();
        let owner = std::thread::Builder::new()
            .name("mock-kafka".to_owned())
            .spawn(move || run_cluster(&ready, &received))
            .map_err(|error| StartError::mock(error.to_string()))?;
        let brokers = started
            .recv()
            .map_err(|error| StartError::mock(error.to_string()))?
            .map_err(StartError::mock)?;
        let mock = Self {
            commands: Some(commands),
            owner: Some(owner),
        };
        Ok((mock, brokers))
    }

    /// Creates a topic with one replica. An error if it exists.
    pub(in crate::testing) async fn create_topic(
        &self,
        name: &str,
        partitions: i32,
    ) -> Result<(), StartError> {
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
            .map_err(|_| StartError::mock("its thread ended during a command"))?
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
