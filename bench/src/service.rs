//! What the generator needs from a service under test: connections, and clients that repeat one operation.

use anyhow::Result;
use tokio::time::Instant;

use crate::workload::Workload;

/// One service with its nodes, reached from this process.
pub trait Service {
    type Client: Client + 'static;

    /// How many connections so many clients use together.
    fn connections(&self, clients: usize) -> usize;

    /// A client that will repeat its part of the workload ([`Workload::cast`]); clients are spread over the nodes by
    /// their number.
    async fn client(&self, workload: Workload, number: usize) -> Result<Self::Client>;
}

pub trait Client {
    /// Makes one of the things that the workload finds when it begins ([`Workload::finds`]), or writes one of the keys.
    async fn prepare(&mut self, number: u32) -> Result<()>;

    /// Does what takes so long that all clients do it at once, before the load begins.
    async fn settle(&mut self) -> Result<()> {
        Ok(())
    }

    /// Does the operation once and checks its answer. It was due at `due`.
    async fn step(&mut self, due: Instant) -> Result<()>;

    /// When what the last step took was due, if another client made it: its latency counts from then.
    fn made(&self) -> Option<Instant> {
        None
    }

    /// Makes the client usable again after a failed step.
    async fn recover(&mut self) -> Result<()>;

    /// Gives back what the service keeps for this client.
    async fn leave(self) -> Result<()>;
}
