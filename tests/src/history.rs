//! What clients asked, what they were told, and when.

use std::time::Duration;

use crate::replay::Item;

/// What a client asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A value begins with `op-` and is written by one action only. `if_match` 0 means "must not exist".
    Put {
        key: String,
        value: String,
        if_match: Option<u64>,
        session: Option<String>,
    },
    Delete {
        key: String,
        if_match: Option<u64>,
    },
    /// If the key has this revision of its last change, the puts and deletes happen, otherwise the put of `otherwise`.
    Txn {
        guard: (String, u64),
        puts: Vec<(String, String)>,
        delete: Option<String>,
        otherwise: (String, String),
    },
    Get {
        key: String,
        stale: bool,
        min_revision: u64,
    },
    List {
        prefix: String,
    },
    Acquire {
        lock: String,
        session: String,
    },
    Release {
        lock: String,
        session: String,
        token: u64,
    },
}

/// What a good answer said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Written { version: u64 },
    Deleted(u64),
    Succeeded(bool),
    Item(Option<Item>),
    Items(Vec<(String, Item)>),
    Granted { token: u64 },
    Released,
}

/// What the client knows afterwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Ok {
        revision: u64,
        answer: Answer,
    },
    /// Refused: certainly without an effect. `current` is the key's revision as the refusal told it, at `revision`.
    No {
        code: String,
        revision: Option<u64>,
        current: Option<u64>,
    },
    /// No answer, or one that says that it does not know.
    Unknown {
        why: String,
    },
}

/// One action of one client. Times are of one monotonic clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    pub client: usize,
    pub call: Duration,
    pub ret: Duration,
    /// How often it was sent, each time with the same Idempotency-Key.
    pub attempts: u32,
    pub action: Action,
    pub outcome: Outcome,
}

impl Op {
    /// The revision of a good answer.
    #[must_use]
    pub fn revision(&self) -> Option<u64> {
        match &self.outcome {
            Outcome::Ok { revision, .. } => Some(*revision),
            _ => None,
        }
    }

    /// Whether a good answer says that something was changed.
    #[must_use]
    pub fn changed(&self) -> bool {
        let Outcome::Ok { answer, .. } = &self.outcome else { return false };
        match answer {
            Answer::Written { .. } | Answer::Succeeded(_) | Answer::Granted { .. } | Answer::Released => true,
            Answer::Deleted(count) => *count > 0,
            Answer::Item(_) | Answer::Items(_) => false,
        }
    }

    #[must_use]
    pub fn kind(&self) -> &'static str {
        match &self.action {
            Action::Put { if_match: Some(_), .. } => "cas",
            Action::Put { .. } => "put",
            Action::Delete { .. } => "delete",
            Action::Txn { .. } => "txn",
            Action::Get { stale: true, .. } => "stale",
            Action::Get { .. } => "get",
            Action::List { .. } => "list",
            Action::Acquire { .. } => "acquire",
            Action::Release { .. } => "release",
        }
    }
}

/// What a node said of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    pub node: usize,
    pub term: u64,
    pub leader: Option<String>,
}

/// All that happened, in no order.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub ops: Vec<Op>,
    /// Those of one node are in the order in which it was asked.
    pub samples: Vec<Sample>,
}

impl History {
    /// Actions of a kind that were answered well.
    #[must_use]
    pub fn ok(&self, kind: &str) -> usize {
        self.ops.iter().filter(|op| op.kind() == kind && op.revision().is_some()).count()
    }

    #[must_use]
    pub fn unknown(&self) -> usize {
        self.ops.iter().filter(|op| matches!(op.outcome, Outcome::Unknown { .. })).count()
    }

    /// How many of each kind ended how, for people.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut counts = std::collections::BTreeMap::<_, usize>::new();
        for op in &self.ops {
            let ended = match &op.outcome {
                Outcome::Ok { .. } => "ok".to_owned(),
                Outcome::No { code, .. } => code.clone(),
                Outcome::Unknown { why } => format!("? {why}"),
            };
            *counts.entry(format!("{} {ended}", op.kind())).or_default() += 1;
        }
        counts.into_iter().map(|(what, count)| format!("{what}: {count}")).collect::<Vec<_>>().join(", ")
    }

    /// The longest time without the end of a good write, between the first and the last one.
    #[must_use]
    pub fn longest_pause(&self) -> Duration {
        let writes = self.ops.iter().filter(|op| op.changed() && matches!(op.action, Action::Put { .. }));
        let mut ends: Vec<Duration> = writes.map(|op| op.ret).collect();
        ends.sort_unstable();
        ends.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).max().unwrap_or_default()
    }
}
