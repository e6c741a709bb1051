//! The session keeper: renews in the background and knows, by our own clock, how long we may rely on it.
//!
//! Validity is counted from when the last answered renewal was *sent*, so it ends here before it ends at the
//! server. Once lost, a session is never revived: whoever needs one opens another.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use coracle_api::{Code, Hold, Lost, Progress, SessionId, SessionRenew, SessionRenewed};
use futures::Stream;
use reqwest::Method;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

use crate::backoff::Backoff;
use crate::call::Call;
use crate::lock::Claim;
use crate::transport::{Answer, Failure};
use crate::{Coracle, Error, LossReason};

/// How a session stands, by our own clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionState {
    /// Renewed in time.
    Active,
    /// The last renewal failed; it still counts until its validity ends.
    Suspended,
    /// Over, for good.
    Lost(LossReason),
}

/// An open session that renews itself. Clones share it; dropping the last one closes it, best effort:
/// [`Session::close`] is sure.
#[derive(Debug, Clone)]
pub struct Session {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    keeper: AbortHandle,
}

#[derive(Debug)]
struct Shared {
    client: Coracle,
    id: SessionId,
    ttl: Duration,
    status: watch::Sender<Status>,
    progress: Mutex<Option<Progress>>,
    renew_now: Notify,
}

#[derive(Debug, Clone)]
pub(crate) struct Status {
    state: SessionState,
    valid_until: Instant,
    /// What was taken away, by renewals' own account, in the order in which it was told.
    revoked: Arc<Vec<Lost>>,
    /// Up to which revision that is told; `None` before the first renewal.
    seen: Option<u64>,
    /// Our work does not move, by the last renewal's account.
    stalled: bool,
    /// What the session held, and at which revision the answering node looked.
    held: Option<(u64, Arc<Vec<Hold>>)>,
}

impl Status {
    /// Why a claim, or with `None` the session, is lost at `now`, if it is.
    fn loss(&self, now: Instant, claim: Option<(&Claim, u64)>) -> Option<LossReason> {
        if let SessionState::Lost(reason) = self.state {
            return Some(reason);
        }
        if now >= self.valid_until {
            return Some(LossReason::OutOfTime);
        }
        let (claim, token) = claim?;
        // One entry may grant a lock and permits of one name: they have one token.
        let is = |family: &str, name: &str| family == claim.family.name && name == claim.name;
        let told = self.revoked.iter().any(|lost| is(&lost.family, &lost.name) && lost.token == Some(token));
        // A node that looked before the grant cannot know of it: absence counts only from the token on.
        let missing = self.held.as_ref().is_some_and(|(revision, holds)| {
            *revision >= token
                && !holds.iter().any(|hold| is(&hold.family, &hold.name) && hold.token == token)
        });
        (told || missing).then_some(LossReason::Revoked)
    }
}

impl Session {
    /// Keep a session that was valid for `valid_for` when it was asked for at `sent`.
    pub(crate) fn keep(
        client: Coracle,
        id: SessionId,
        ttl: Duration,
        valid_for: Duration,
        sent: Instant,
    ) -> Self {
        let status = Status {
            state: SessionState::Active,
            valid_until: sent + valid_for,
            revoked: Arc::default(),
            seen: None,
            stalled: false,
            held: None,
        };
        let shared = Arc::new(Shared {
            client,
            id,
            ttl,
            status: watch::Sender::new(status),
            progress: Mutex::new(None),
            renew_now: Notify::new(),
        });
        let keeper = tokio::spawn(keep(Arc::clone(&shared), sent)).abort_handle();
        Self { inner: Arc::new(Inner { shared, keeper }) }
    }

    #[must_use]
    pub fn id(&self) -> SessionId {
        self.inner.shared.id
    }

    #[must_use]
    pub fn ttl(&self) -> Duration {
        self.inner.shared.ttl
    }

    #[must_use]
    pub fn state(&self) -> SessionState {
        let status = self.inner.shared.status.borrow();
        if status.state != SessionState::Active && status.state != SessionState::Suspended {
            return status.state;
        }
        // The clock is right even when the keeper had no chance to run.
        if Instant::now() >= status.valid_until {
            SessionState::Lost(LossReason::OutOfTime)
        } else {
            status.state
        }
    }

    /// Time for which the session is still ours without another renewal; zero once lost.
    #[must_use]
    pub fn valid_for(&self) -> Duration {
        match self.state() {
            SessionState::Lost(_) => Duration::ZERO,
            _ => self.inner.shared.status.borrow().valid_until.saturating_duration_since(Instant::now()),
        }
    }

    /// Every state from the current one on; ends after [`SessionState::Lost`].
    pub fn states(&self) -> impl Stream<Item = SessionState> + Send + use<> {
        let mut receiver = self.inner.shared.status.subscribe();
        receiver.mark_changed();
        futures::stream::unfold((receiver, None), |(mut receiver, last)| async move {
            if matches!(last, Some(SessionState::Lost(_))) {
                return None;
            }
            loop {
                receiver.changed().await.ok()?;
                let state = receiver.borrow_and_update().state;
                if last != Some(state) {
                    return Some((state, (receiver, Some(state))));
                }
            }
        })
    }

    /// Whether our work has not moved for as long as [`crate::OpenSession::stall_after`] allows, by the last renewal.
    #[must_use]
    pub fn stalled(&self) -> bool {
        self.inner.shared.status.borrow().stalled
    }

    /// What is taken from the session while it lives, from its opening on: locks that an operator breaks, keys and
    /// registrations that somebody removes. Told by renewals; ends with the session.
    pub fn losses(&self) -> impl Stream<Item = Lost> + Send + use<> {
        let mut receiver = self.inner.shared.status.subscribe();
        receiver.mark_changed();
        futures::stream::unfold((receiver, 0), |(mut receiver, told)| async move {
            loop {
                {
                    let status = receiver.borrow_and_update();
                    if let Some(lost) = status.revoked.get(told) {
                        let lost = lost.clone();
                        drop(status);
                        return Some((lost, (receiver, told + 1)));
                    }
                    if matches!(status.state, SessionState::Lost(_)) {
                        return None;
                    }
                }
                receiver.changed().await.ok()?;
            }
        })
    }

    /// Wait until the session is lost.
    pub async fn lost(&self) -> LossReason {
        self.loss_of(None).await
    }

    /// Wait until a claim of this session is lost: with the session, or alone.
    pub(crate) async fn claim_lost(&self, claim: &Claim, token: u64) -> LossReason {
        self.loss_of(Some((claim, token))).await
    }

    async fn loss_of(&self, claim: Option<(&Claim, u64)>) -> LossReason {
        let mut receiver = self.inner.shared.status.subscribe();
        loop {
            let status = receiver.borrow_and_update().clone();
            if let Some(reason) = status.loss(Instant::now(), claim) {
                return reason;
            }
            tokio::select! {
                changed = receiver.changed() => if changed.is_err() { return LossReason::Closed },
                () = tokio::time::sleep_until(status.valid_until.into()) => {}
            }
        }
    }

    /// Why a claim of this session is lost, if it is.
    pub(crate) fn claim_loss(&self, claim: &Claim, token: u64) -> Option<LossReason> {
        self.inner.shared.status.borrow().loss(Instant::now(), Some((claim, token)))
    }

    /// Tell how far the work has come, 0 to 100; sent at once, with a renewal.
    pub fn report(&self, percent: u8, note: Option<String>) {
        let progress = Progress { percent: percent.min(100), note };
        *self.inner.shared.progress.lock().unwrap_or_else(PoisonError::into_inner) = Some(progress);
        self.inner.shared.renew_now.notify_one();
    }

    /// Close the session: everything it holds is released, everything it waits for is given up.
    ///
    /// # Errors
    /// See [`Error`]. A session that is already gone is no error.
    pub async fn close(self) -> Result<(), Error> {
        let shared = &self.inner.shared;
        self.inner.keeper.abort();
        shared.set_state(SessionState::Lost(LossReason::Closed));
        match shared.client.send(close_call(shared.id)).await {
            Ok(_) => Ok(()),
            Err(error) if is_gone(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Shared {
    fn set_state(&self, state: SessionState) {
        self.status.send_if_modified(|status| {
            let over = matches!(status.state, SessionState::Lost(_));
            let changes = !over && status.state != state;
            if changes {
                status.state = state;
            }
            changes
        });
    }

    fn renewed(&self, sent: Instant, revision: Option<u64>, renewed: SessionRenewed) {
        self.status.send_modify(|status| {
            if matches!(status.state, SessionState::Lost(_)) {
                return;
            }
            status.state = SessionState::Active;
            // An earlier promise stays a promise.
            status.valid_until = status.valid_until.max(sent + renewed.valid_for.as_duration());
            status.stalled = renewed.stalled;
            // A node that lags behind has nothing to say of what comes after it.
            status.seen = status.seen.max(Some(renewed.revision));
            if !renewed.lost.is_empty() {
                let mut revoked = (*status.revoked).clone();
                revoked.extend(renewed.lost);
                status.revoked = Arc::new(revoked);
            }
            // A node that lags behind what another one told has nothing new to say.
            let seen = status.held.as_ref().map_or(0, |(revision, _)| *revision);
            if let Some(revision) = revision.filter(|revision| *revision >= seen) {
                status.held = Some((revision, Arc::new(renewed.holds)));
            }
        });
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.keeper.abort();
        let over = matches!(self.shared.status.borrow().state, SessionState::Lost(_));
        if !over && let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (client, id) = (self.shared.client.clone(), self.shared.id);
            runtime.spawn(async move { client.send(close_call(id)).await });
        }
        self.shared.set_state(SessionState::Lost(LossReason::Closed));
    }
}

pub(crate) fn close_call(id: SessionId) -> Call {
    Call::change(Method::DELETE, format!("/v1/sessions/{id}"))
}

fn is_gone(error: &Error) -> bool {
    matches!(error.code(), Some(Code::SessionNotFound | Code::SessionExpired))
}

/// Renew every third of the ttl until the session is lost.
async fn keep(shared: Arc<Shared>, opened: Instant) {
    let third = shared.ttl / 3;
    let mut due = opened + third;
    let mut backoff = Backoff::default();
    loop {
        let valid_until = shared.status.borrow().valid_until;
        tokio::select! {
            () = tokio::time::sleep_until(due.min(valid_until).into()) => {}
            () = shared.renew_now.notified() => {}
        }
        let now = Instant::now();
        if now >= valid_until {
            return shared.set_state(SessionState::Lost(LossReason::OutOfTime));
        }
        // Short enough that another node gets its chance before the end.
        let timeout = shared.client.transport.attempt_timeout.min(third).min(valid_until - now);
        match renew(&shared, timeout).await {
            Ok((answer, renewed)) => {
                backoff.reset();
                due = answer.sent + third;
                shared.renewed(answer.sent, answer.number("coracle-revision"), renewed);
            }
            Err(Renewal::Gone) => return shared.set_state(SessionState::Lost(LossReason::Expired)),
            Err(Renewal::Failed) => {
                shared.set_state(SessionState::Suspended);
                due = Instant::now() + backoff.next().min(third / 2);
            }
        }
    }
}

enum Renewal {
    Gone,
    Failed,
}

async fn renew(shared: &Shared, timeout: Duration) -> Result<(Answer, SessionRenewed), Renewal> {
    let progress = shared.progress.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let seen = shared.status.borrow().seen.filter(|revision| *revision > 0);
    let call = Call::new(Method::POST, format!("/v1/sessions/{}/renew", shared.id)).query_some("after", seen);
    let call = match progress {
        Some(_) => call.json(&SessionRenew { progress: progress.clone(), meta: None }),
        None => Ok(call),
    };
    let answer: Answer =
        match shared.client.transport.once(&call.map_err(|_| Renewal::Failed)?, timeout).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(Failure::Problem { problem, .. }))
                if matches!(problem.code, Code::SessionExpired | Code::SessionNotFound) =>
            {
                return Err(Renewal::Gone);
            }
            _ => return Err(Renewal::Failed),
        };
    let renewed = answer.json().map_err(|_| Renewal::Failed)?;
    let mut told = shared.progress.lock().unwrap_or_else(PoisonError::into_inner);
    if *told == progress {
        *told = None;
    }
    Ok((answer, renewed))
}
