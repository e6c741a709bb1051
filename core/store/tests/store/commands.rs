//! Random entries over few keys, few sessions and a short memory, so that they meet.

use coracle_store::command::{
    Append, Comparison, Delete, DeleteRange, Expiry, OnExpire, OpenSession, Precondition, Put, Transaction,
    UpdateSession,
};
use coracle_store::{
    Action, Attach, Command, Condition, ContentType, Idempotency, Key, Millis, Operation, Principal,
    Revision, SessionId, Settings, Value,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::words::kv;

/// One entry, so many milliseconds after the last.
#[derive(Debug, Clone)]
pub struct Entry {
    pub pass: u64,
    pub command: Command,
}

pub fn entries(most: usize) -> impl Strategy<Value = Vec<Entry>> {
    let pass = prop_oneof![10 => Just(0), 10 => 1..2_000_u64, 1 => Just(3_600_000)];
    vec((pass, command()).prop_map(|(pass, command)| Entry { pass, command }), 1..most)
}

pub fn key() -> impl Strategy<Value = Key> {
    prop::sample::select(&["a", "ab", "abc", "b", "ba", "c", "d"][..]).prop_map(kv)
}

fn command() -> impl Strategy<Value = Command> {
    let who = prop::sample::select(&["ann", "bob"][..]).prop_map(|name| Principal(name.into()));
    let asked = (prop::sample::select(&["k1", "k2", "k3"][..]), 0..2_u64)
        .prop_map(|(key, fingerprint)| Idempotency { key: key.into(), fingerprint });
    let guards = prop_oneof![5 => Just(Vec::new()), 1 => vec(condition(), 1..3)];
    (who, option::weighted(0.2, asked), guards, action()).prop_map(
        |(principal, idempotency, guards, action)| Command { principal, idempotency, guards, action },
    )
}

fn action() -> impl Strategy<Value = Action> {
    let transaction = (vec(condition(), 0..3), vec(operation(), 0..6), vec(operation(), 0..3))
        .prop_map(|(conditions, then, otherwise)| Transaction { conditions, then, otherwise });
    let quota = prop_oneof![Just(2_500_u64), Just(6_000), Just(1_000_000)];
    prop_oneof![
        1 => Just(Action::Noop),
        4 => Just(Action::Advance),
        2 => (vec(expiry(), 0..4), vec(session(), 0..2))
            .prop_map(|(missing, renewed)| Action::Doubt(missing, renewed)),
        30 => operation().prop_map(Action::One),
        15 => transaction.prop_map(Action::Transaction),
        4 => vec(expiry(), 0..4).prop_map(Action::Expire),
        2 => (0..60_u64).prop_map(|target| Action::Compact(Revision(target))),
        1 => quota.prop_map(|quota_bytes| Action::Configure(Settings { quota_bytes, ..Settings::default() })),
    ]
}

fn expiry() -> impl Strategy<Value = Expiry> {
    (session(), prop_oneof![4 => Just(1), 1 => Just(2_u64)])
        .prop_map(|(session, generation)| Expiry { session, generation })
}

fn operation() -> impl Strategy<Value = Operation> {
    let put = (key(), value(), content_type(), attach(), precondition(), any::<bool>()).prop_map(
        |(key, value, content_type, attach, precondition, return_previous)| {
            Operation::Put(Put { key, value, content_type, attach, precondition, return_previous })
        },
    );
    let append =
        (key(), value(), content_type(), attach()).prop_map(|(directory, value, content_type, attach)| {
            Operation::Append(Append { directory, value, content_type, attach })
        });
    let delete = (key(), precondition(), any::<bool>()).prop_map(|(key, precondition, return_previous)| {
        Operation::Delete(Delete { key, precondition, return_previous })
    });
    let range = (key(), option::of(key()))
        .prop_map(|(start, end)| Operation::DeleteRange(DeleteRange { start, end }));
    let progress = prop_oneof![0..=100_u8, Just(50), Just(100)];
    let update = (session(), option::of(progress), option::of(Just("note")), option::of(Just("{}")))
        .prop_map(|(id, progress, note, meta)| {
            let (note, meta) = (note.map(Into::into), meta.map(Into::into));
            Operation::UpdateSession(UpdateSession { id, progress, note, meta })
        });
    prop_oneof![
        12 => put,
        2 => append,
        4 => delete,
        1 => range,
        2 => key().prop_map(Operation::Get),
        4 => open().prop_map(Operation::OpenSession),
        2 => update,
        2 => session().prop_map(Operation::CloseSession),
        1 => Just(Operation::Program(Vec::new().into())),
    ]
}

fn session() -> impl Strategy<Value = SessionId> {
    (1..7_u64).prop_map(SessionId)
}

fn open() -> impl Strategy<Value = OpenSession> {
    let on_expire = prop_oneof![Just(OnExpire::Delete), Just(OnExpire::Release)];
    let stall_after = option::of((1_000..4_000_u64).prop_map(Millis));
    (session(), 1_000..20_000_u64, on_expire, stall_after).prop_map(|(id, ttl, on_expire, stall_after)| {
        let name = format!("name of {}", id.0).into();
        OpenSession { name, on_expire, stall_after, ..OpenSession::new(id, Millis(ttl)) }
    })
}

fn attach() -> impl Strategy<Value = Attach> {
    prop_oneof![
        4 => Just(Attach::None),
        1 => Just(Attach::Keep),
        3 => session().prop_map(Attach::Session),
        1 => open().prop_map(Attach::Private),
    ]
}

fn precondition() -> impl Strategy<Value = Precondition> {
    prop_oneof![
        8 => Just(Precondition::None),
        1 => (0..20_u64).prop_map(|revision| Precondition::Matches(Revision(revision))),
        1 => Just(Precondition::Absent),
        1 => Just(Precondition::Present),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    // Large ones are hashed another way.
    let length = prop_oneof![10 => 0..40_usize, 1 => Just(1_500)];
    (any::<u8>(), length).prop_map(|(byte, length)| Value::from(vec![byte; length]))
}

fn content_type() -> impl Strategy<Value = ContentType> {
    prop_oneof![
        Just(ContentType::Text),
        Just(ContentType::Binary),
        Just(ContentType::Json),
        Just(ContentType::Other(Box::new("image/png".into()))),
    ]
}

fn condition() -> impl Strategy<Value = Condition> {
    let comparison = || {
        prop::sample::select(vec![
            Comparison::Equal,
            Comparison::NotEqual,
            Comparison::Less,
            Comparison::Greater,
        ])
    };
    prop_oneof![
        (key(), any::<bool>()).prop_map(|(key, exists)| Condition::Exists(key, exists)),
        (key(), comparison(), 0..20_u64)
            .prop_map(|(key, sign, than)| { Condition::ModRevision(key, sign, Revision(than)) }),
        (key(), comparison(), 0..20_u64)
            .prop_map(|(key, sign, than)| { Condition::CreateRevision(key, sign, Revision(than)) }),
        (key(), comparison(), 0..4_u64).prop_map(|(key, sign, than)| Condition::Version(key, sign, than)),
        (key(), comparison(), value()).prop_map(|(key, sign, than)| Condition::Value(key, sign, than)),
        session().prop_map(Condition::Alive),
    ]
}
