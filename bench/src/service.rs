//! What the generator needs from a service under test: connections, and clients that repeat one operation.

use anyhow::Result;

use crate::workload::Workload;

/// One service with its nodes, reached from this process.
pub trait Service {
    type Client: Client + 'static;

    /// How many connections the clients use together.
    fn connections(&self) -> usize;

    /// A client that will repeat the workload; clients are spread over the nodes by their number.
    async fn client(&self, workload: Workload, number: usize) -> Result<Self::Client>;
}

pub trait Client {
    /// Makes one of the things that the workload finds when it begins ([`Workload::finds`]), or writes one of the keys.
    async fn prepare(&mut self, number: u32) -> Result<()>;

    /// Does the operation once and checks its answer.
    async fn step(&mut self) -> Result<()>;

    /// Makes the client usable again after a failed step.
    async fn recover(&mut self) -> Result<()>;

    /// Gives back what the service keeps for this client.
    async fn leave(self) -> Result<()>;
}
