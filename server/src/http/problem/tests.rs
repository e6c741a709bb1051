use std::sync::Arc;

use coracle_recipes::lock::{self, Mode};
use coracle_store::{Family, Key, Timestamp};

use super::*;

fn shown(refused: &Refused) -> String {
    let problem = &refused.0;
    let (retry, effect) =
        (serde_json::to_string(&problem.retry).unwrap(), serde_json::to_string(&problem.effect).unwrap());
    let extra: Vec<_> = problem.extra.keys().map(String::as_str).collect();
    format!("{} {} {retry} {effect} [{}] {}", problem.status, problem.code, extra.join(","), problem.detail)
        .replace('"', "")
}

fn hold(owner: &str) -> lock::Hold {
    lock::Hold {
        session: SessionId(7),
        owner: owner.into(),
        terms: Mode::Exclusive,
        token: Revision(811),
        since: Timestamp(0),
        meta: "".into(),
        ordinal: 0,
        count: 1,
        overdue: false,
        lock_delay: None,
        overdue_at: None,
    }
}

#[test]
fn what_the_log_refuses() {
    let key = || Key::new(Family::KV, b"a\xff");
    let program = |refusal| {
        let bytes = coracle_recipes::Refusal::Lock(refusal);
        Refusal::Program(minicbor::to_vec(bytes).unwrap().into())
    };
    let table = [
        (Refusal::Malformed, "500 internal same_request unknown [] the log does not know this command"),
        (
            Refusal::RevisionMismatch(key(), Revision(41)),
            r"412 revision_mismatch after_reread none [current_revision,key] the key has another revision key=a\xff current_revision=41",
        ),
        (
            Refusal::SessionExpired(SessionId(7)),
            "410 session_expired never none [session] the session has ended or never was session=0000000000000007",
        ),
        (
            Refusal::SessionExists(SessionId(7)),
            "500 internal same_request unknown [session] the drawn session id is taken session=0000000000000007",
        ),
        (
            Refusal::DuplicateKey(key()),
            r"400 duplicate_key never none [key] the transaction changes a key twice key=a\xff",
        ),
        (Refusal::TooManyOperations(128), "400 too_many_ops never none [max] too many operations max=128"),
        (
            Refusal::OutOfBounds("value".into(), 1, 2),
            "413 too_large never none [actual,limit,max] over a limit limit=value max=1 actual=2",
        ),
        (
            Refusal::QuotaExceeded(9, 8),
            "507 quota_exceeded after_change none [quota,used] the storage quota is used up used=9 quota=8",
        ),
        (
            Refusal::IdempotencyKeyReused,
            "422 idempotency_key_reused never none [] this Idempotency-Key was used for another request",
        ),
        (Refusal::GuardFailed(1), "412 fence_stale never none [position] a guard does not hold position=1"),
        (
            Refusal::TooManyHolds(SessionId(7), 1000),
            "413 too_large never none [limit,max,session] the session holds as much as a session may session=0000000000000007 max=1000",
        ),
        (
            program(lock::Refusal::Held(vec![hold("ci-7")], 2)),
            "409 lock_held after_change none [blockers,waiting] held by=ci-7 waiting=2",
        ),
        (
            program(lock::Refusal::Held(vec![hold("")], 0)),
            "409 lock_held after_change none [blockers,waiting] held by=0000000000000007 waiting=0",
        ),
        (
            program(lock::Refusal::NotHolder),
            "409 not_holder after_reread none [] the session (with that token) does not hold the lock",
        ),
        (
            program(lock::Refusal::FenceStale(Some(Revision(9)))),
            "412 fence_stale never none [current_token] the token is not of a current hold current_token=9",
        ),
        (
            program(lock::Refusal::ModeMismatch(Mode::Shared)),
            "409 would_deadlock after_change none [mode] the session has a claim on the lock in another mode mode=shared",
        ),
        (
            program(lock::Refusal::Closed(Timestamp(5_000), 3)),
            "409 lock_held after_change none [closed_until,waiting] nothing is granted before closed_until=1970-01-01T00:00:05Z waiting=3",
        ),
        (
            program(lock::Refusal::OtherClaim("a".into())),
            "409 would_deadlock after_change none [lock] the session has another claim on the lock lock=a",
        ),
        (
            program(lock::Refusal::TooManyWaiters(10)),
            "429 too_many_waiters same_request none [max] the line is as long as a line may be max=10",
        ),
        (
            program(lock::Refusal::NotFound),
            "404 lock_not_found after_change none [] nobody holds or waits for the lock",
        ),
        (
            Refusal::Program(vec![0xff].into()),
            "500 internal same_request unknown [] the log answered a refusal this version does not know",
        ),
    ];
    for (refusal, expect) in table {
        let refused = refused(&refusal, Revision(842));
        assert_eq!(shown(&refused), expect);
        assert_eq!(refused.0.revision, Some(842));
    }
}

#[test]
fn circumstances_say_honestly_whether_anything_happened() {
    let stopped = Circumstance::Stopped(Arc::from("disk"));
    for (circumstance, status, code, effect) in [
        (Circumstance::NoLeader, 503, Code::NoLeader, coracle_api::Effect::None),
        (Circumstance::Overloaded, 503, Code::Overloaded, coracle_api::Effect::None),
        (Circumstance::CommitTimeout, 504, Code::CommitTimeout, coracle_api::Effect::Unknown),
        (Circumstance::Lost, 504, Code::CommitTimeout, coracle_api::Effect::Unknown),
        (Circumstance::Full, 507, Code::QuotaExceeded, coracle_api::Effect::None),
        (Circumstance::ShuttingDown, 503, Code::ShuttingDown, coracle_api::Effect::None),
        (stopped, 503, Code::NotReady, coracle_api::Effect::None),
    ] {
        let problem = Refused::from(circumstance).0;
        assert_eq!((problem.status, problem.code, problem.effect), (status, code, effect));
    }
}

#[test]
fn members_and_history() {
    for (refused, expect) in [
        (MemberError::Unknown(9).into(), "404 member_not_found after_change none [id] no such member id=9"),
        (
            MemberError::Exists(9).into(),
            "409 already_exists after_reread none [id] a member has this name or peer address id=9",
        ),
        (
            MemberError::WouldLoseQuorum.into(),
            "409 would_lose_quorum after_change none [] the voters that answer would no longer be a majority",
        ),
        (
            MemberError::NotCaughtUp { matched: 1, last: 2 }.into(),
            "409 not_caught_up after_change none [last,matched] the learner lags matched=1 last=2",
        ),
        (
            MemberError::Busy.into(),
            "503 overloaded same_request none [] another membership change is under way",
        ),
        (
            HistoryError::Compacted(Revision(5)).into(),
            "410 compacted after_reread none [compact_revision] the history is compacted compact_revision=5",
        ),
        (
            HistoryError::Future(Revision(5)).into(),
            "400 invalid_argument never none [errors,newest] the revision has not happened yet newest=5 in=query name=revision",
        ),
    ] {
        let refused: Refused = refused;
        assert_eq!(shown(&refused), expect);
    }
}

#[test]
fn who_is_asked_to_come_back_is_told_when() {
    for code in Code::ALL {
        let later = matches!(code.status(), 429) || matches!(code, Code::Overloaded | Code::NotReady);
        assert_eq!(retry_after(*code).is_some(), later, "{code}");
    }
}
