//! A granted claim on a lock, semaphore or election: its token, its loss, its release.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use coracle_api::{Code, Mode};

use crate::escape::escape;
use crate::lock::Claim;
use crate::{Coracle, Error, LossReason, Session};

/// Proof of a claim, to be carried by whatever the claim protects. Refused with 412 `fence_stale` once the
/// claim is no longer current.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    claim: String,
    token: u64,
}

impl Fence {
    /// A claim such as `locks/deploy` with the token of its grant.
    #[must_use]
    pub fn new(claim: impl Into<String>, token: u64) -> Self {
        Self { claim: claim.into(), token }
    }

    #[must_use]
    pub fn token(&self) -> u64 {
        self.token
    }

    /// `locks/deploy`
    #[must_use]
    pub fn claim(&self) -> String {
        self.claim.clone()
    }
}

impl fmt::Display for Fence {
    /// As the header `If-Held` takes it; the name percent-encoded.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (family, name) = self.claim.split_once('/').unwrap_or(("", &self.claim));
        write!(f, "{family}/{}; token={}", escape(name.as_bytes()), self.token)
    }
}

/// A held lock, permits of a semaphore, or a term as the leader. Dropping it gives it back, best effort;
/// [`ClaimGuard::release`] is sure.
///
/// The hold is as good as its session: a process that was paused may still *believe* it has it.
/// Give the [`Fence`] to whatever it writes.
#[derive(Debug)]
pub struct ClaimGuard {
    client: Coracle,
    claim: Claim,
    token: u64,
    mode: Mode,
    session: Session,
    /// The session was opened for this claim and ends with it.
    own_session: bool,
    released: bool,
}

impl ClaimGuard {
    pub(crate) fn new(
        client: Coracle,
        claim: Claim,
        token: u64,
        mode: Mode,
        session: Session,
        own_session: bool,
    ) -> Self {
        Self { client, claim, token, mode, session, own_session, released: false }
    }

    /// The fencing token: the revision of the grant, higher than that of every earlier holder.
    #[must_use]
    pub fn token(&self) -> u64 {
        self.token
    }

    /// Of a lock; exclusive for all else.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.claim.name
    }

    #[must_use]
    pub fn fence(&self) -> Fence {
        Fence::new(self.claim.to_string(), self.token)
    }

    #[must_use]
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Time for which it is still ours without another renewal; zero once lost.
    #[must_use]
    pub fn valid_for(&self) -> Duration {
        if self.check().is_err() { Duration::ZERO } else { self.session.valid_for() }
    }

    /// Whether it is still ours, by our own clock.
    ///
    /// # Errors
    /// [`Error::ClaimLost`].
    pub fn check(&self) -> Result<(), Error> {
        match self.session.claim_loss(&self.claim, self.token) {
            None => Ok(()),
            Some(reason) => Err(self.loss(reason)),
        }
    }

    /// Wait until it is lost.
    pub async fn lost(&self) -> LossReason {
        self.session.claim_lost(&self.claim, self.token).await
    }

    /// Run a block for as long as the claim is held. If it is lost, the block is cancelled where it
    /// stands and the answer is [`Error::ClaimLost`], also if the loss shows only when the block is done.
    ///
    /// # Errors
    /// [`Error::ClaimLost`], or what the block returns.
    pub async fn run<T, E, F>(&self, block: impl FnOnce(Fence) -> F) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
        E: From<Error>,
    {
        self.check()?;
        let done = tokio::select! {
            biased;
            reason = self.lost() => return Err(self.loss(reason).into()),
            done = block(self.fence()) => done,
        };
        self.check()?;
        done
    }

    /// Give it back, and be sure of it.
    ///
    /// # Errors
    /// [`Error::ClaimLost`] if it was not ours any more; see [`Error`].
    pub async fn release(mut self) -> Result<(), Error> {
        self.released = true;
        let result = if self.own_session {
            // One entry releases the claim and ends the session that existed for it.
            let lost = self.check();
            let closed = self.session.clone().close().await;
            lost.and(closed)
        } else {
            self.client.send(self.claim.release(self.session.id())).await.map(drop)
        };
        result.map_err(|error| match error.code() {
            Some(Code::NotHolder | Code::NotLeader) => self.loss(LossReason::Revoked),
            Some(Code::SessionExpired | Code::SessionNotFound) => self.loss(LossReason::Expired),
            _ => error,
        })
    }

    fn loss(&self, reason: LossReason) -> Error {
        Error::ClaimLost { name: self.claim.name.clone(), reason }
    }
}

impl Drop for ClaimGuard {
    fn drop(&mut self) {
        // A session of our own is closed by its own drop, which releases the claim as well.
        if self.released || self.own_session {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (client, call) = (self.client.clone(), self.claim.release(self.session.id()));
            runtime.spawn(async move { client.send(call).await });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_as_a_header() {
        assert_eq!(Fence::new("locks/deploy", 811).to_string(), "locks/deploy; token=811");
        assert_eq!(Fence::new("locks/a/b; \u{e4}", 8).to_string(), "locks/a%2Fb%3B%20%C3%A4; token=8");
    }
}
