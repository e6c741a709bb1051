//! ① The parameters that endpoints share, each with its bounds, as documented and as tested.

use coracle_api::Span;
use coracle_store::limits;

use super::call::WAIT_MAX;
use super::list::ITEMS_MAX;

/// Where a parameter stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Query,
    Path,
}

/// What a parameter may be.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// Any text of so many bytes.
    Text(usize, usize),
    /// A name: one path segment, 1 to 512 bytes, no control characters.
    Name,
    Flag,
    /// A whole number from, to.
    Number(u64, u64),
    Duration(Span, Span),
    Word(&'static [&'static str]),
    /// The same, perhaps below zero.
    Integer(i64, i64),
    Session,
    /// A family that has events.
    Family,
    /// Text of a pattern.
    Pattern(&'static str),
}

/// One parameter.
#[derive(Debug, Clone, Copy)]
pub struct Param {
    pub name: &'static str,
    pub place: Place,
    pub kind: Kind,
    pub says: &'static str,
    pub required: bool,
    pub repeats: bool,
    /// A header that says the same, and how it is written there.
    pub twin: Option<(&'static str, &'static str)>,
    /// What must be asked for together with it, such as `watch=true`.
    pub with: &'static str,
    /// A value that is taken, for readers and for tests; empty: drawn from the kind.
    pub example: &'static str,
}

impl Param {
    pub const fn new(name: &'static str, kind: Kind) -> Self {
        Self {
            name,
            place: Place::Query,
            kind,
            says: "",
            required: false,
            repeats: false,
            twin: None,
            with: "",
            example: "",
        }
    }

    pub const fn flag(name: &'static str) -> Self {
        Self::new(name, Kind::Flag)
    }

    pub const fn text(name: &'static str) -> Self {
        Self::new(name, Kind::Text(0, usize::MAX))
    }

    pub const fn name(name: &'static str) -> Self {
        Self::new(name, Kind::Name)
    }

    /// A number from `min` on.
    pub const fn number(name: &'static str, min: u64) -> Self {
        Self::new(name, Kind::Number(min, u64::MAX))
    }

    pub const fn integer(name: &'static str, min: i64, max: i64) -> Self {
        Self::new(name, Kind::Integer(min, max))
    }

    pub const fn duration(name: &'static str, min: Span, max: Span) -> Self {
        Self::new(name, Kind::Duration(min, max))
    }

    pub const fn word(name: &'static str, words: &'static [&'static str]) -> Self {
        Self::new(name, Kind::Word(words))
    }

    pub const fn session(name: &'static str) -> Self {
        Self::new(name, Kind::Session)
    }

    pub const fn says(mut self, says: &'static str) -> Self {
        self.says = says;
        self
    }

    pub const fn required(mut self) -> Self {
        self.required = true;
        self
    }

    pub const fn repeats(mut self) -> Self {
        self.repeats = true;
        self
    }

    pub const fn in_path(mut self) -> Self {
        self.place = Place::Path;
        self.required = true;
        self
    }

    pub const fn twin(mut self, header: &'static str, form: &'static str) -> Self {
        self.twin = Some((header, form));
        self
    }

    pub const fn with(mut self, with: &'static str) -> Self {
        self.with = with;
        self
    }

    pub const fn example(mut self, example: &'static str) -> Self {
        self.example = example;
        self
    }
}

const SECOND: Span = Span::from_millis_saturating(1000);
const TTL_MIN: Span = Span::from_millis_saturating(*limits::TTL_MS.start());
const TTL_MAX: Span = Span::from_millis_saturating(*limits::TTL_MS.end());

pub const WAIT: Param = Param::duration("wait", Span::ZERO, WAIT_MAX)
    .says("How long to wait for the answer to be another.")
    .twin("Prefer", "wait=2");

/// Freshness of a read.
pub const READ: &[Param] = &[
    Param::word("consistency", &["linearizable", "stale"])
        .says("`stale` answers from this node without asking the leader."),
    Param::duration("max_stale", Span::ZERO, Span::MAX)
        .says("How old a stale answer may be; older ones are read linearizably.")
        .with("consistency=stale"),
    Param::number("min_revision", 0).says("Wait until this node has this revision."),
];

/// A wait for news.
pub const LONG_POLL: &[Param] = &[
    WAIT,
    Param::number("after", 0)
        .says("The last revision seen: answered as soon as something is newer, or with 304.")
        .with("wait=0"),
];

pub const WATCH: Param = Param::flag("watch")
    .says("Answer with a stream of frames; the header `Accept: text/event-stream` asks for one, too.");
/// `after` of an endpoint that watches.
pub const AFTER_FRAMES: Param = Param::number("after", 0)
    .says("The last revision seen: the stream begins behind it.")
    .twin("Last-Event-ID", "41")
    .with("watch=true");
/// `after` of an endpoint that waits or watches.
pub const AFTER_OF_BOTH: Param = Param::number("after", 0)
    .says(
        "The last revision seen. With `wait`: answered as soon as something is newer, or with 304. With \
           `watch=true`: the stream begins behind it.",
    )
    .twin("Last-Event-ID", "41")
    .with("wait=0");

/// What goes with a watch.
pub const WATCHING: &[Param] = &[
    AFTER_FRAMES,
    Param::flag("initial").says("`false`: no snapshot.").with("watch=true"),
    Param::duration("heartbeat", SECOND, WAIT_MAX)
        .says("A `progress` frame at least so often.")
        .with("watch=true"),
    Param::word("on_gap", &["snapshot", "error"])
        .says("`error`: 410 if `after` is compacted, instead of a `gap` and a snapshot.")
        .with("watch=true"),
    Param::number("limit", 1).says("The stream ends after so many frames.").with("watch=true"),
];

pub const LIMIT: Param =
    Param::new("limit", Kind::Number(1, ITEMS_MAX)).says("Items of a page; 100 if not given.");
pub const LIMIT_OF_BOTH: Param = Param::number("limit", 1)
    .says("Items of a page, 1 to 1000, 100 if not given; of a watch the frames after which it ends.");
pub const REVISION: Param = Param::number("revision", 0).says("As of this revision.");
pub const CURSOR: Param = Param::text("cursor").says("`next_cursor` of the page before.");

pub const ON_DISCONNECT: Param = Param::word("on_disconnect", &["grace", "expire"])
    .says("`expire`: when the connection closes the session ends at once, not after its ttl.")
    .with("hold=true");
pub const SESSION: Param = Param::session("session").says("The session that holds the claim.").required();

pub const TTL: Param =
    Param::duration("ttl", TTL_MIN, TTL_MAX).says("It lives with a session of its own, of this lifetime.");
pub const HOLD: Param =
    Param::flag("hold").says("The answer is a stream; it lives as long as the connection, then for the ttl.");

/// What a claim lives with.
pub const TRIO: &[Param] = &[
    Param::session("session").says("It lives with this session. One of `session`, `ttl`, `hold=true`."),
    TTL,
    HOLD,
    ON_DISCONNECT,
];

pub const KEEP: Param =
    Param::flag("keep").says("When the wait is over: 202 and a place in the line, not 409.").with("ttl=1m");
pub const OWNER: Param =
    Param::new("owner", Kind::Text(0, limits::NAME_BYTES)).says("Who it is, for people.");
pub const REASON: Param =
    Param::new("reason", Kind::Text(0, limits::NAME_BYTES)).says("Why, for the events.").example("stuck");
pub const TO: Param = Param::session("to").says("The session that gets it.").required();
pub const PREFIX: Param = Param::text("prefix").says("Only names that begin with this.").example("app/");

/// Conditions on the revision of one object.
pub const IF_MATCH: Param =
    Param::new("if_match", Kind::Pattern(r#"^(\*|(W/)?"?[0-9]+"?(, *(W/)?"?[0-9]+"?)*)$"#))
        .says("Only if the key has this revision; `*`: only if it exists.")
        .twin("If-Match", "\"41\"")
        .example("*");
pub const IF_NONE_MATCH: Param =
    Param::new("if_none_match", Kind::Pattern(r#"^(\*|(W/)?"?[0-9]+"?(, *(W/)?"?[0-9]+"?)*)$"#))
        .says("304 if the key still has this revision.")
        .twin("If-None-Match", "\"41\"")
        .example("0");
pub const IF_ABSENT: Param = Param::word("if_none_match", &["*"])
    .says("`*`: only if the key does not exist.")
    .twin("If-None-Match", "*");

/// What goes with every change.
pub const CHANGE: &[Param] = &[
    Param::new("if_held", Kind::Pattern("^[a-z]+/.+; *token=\"?[0-9]+\"?$"))
        .says("Only if this claim is current: `locks/NAME; token=N`. May repeat.")
        .repeats()
        .twin("If-Held", "locks/deploy; token=811")
        .example("locks/deploy; token=811"),
    Param::new("idempotency_key", Kind::Text(1, limits::IDEMPOTENCY_KEY_BYTES))
        .says("A name for this request: for an hour a repetition is answered with the first result.")
        .twin("Idempotency-Key", "4f2a"),
];

/// A claim that is held: whose, and which grant of it.
pub const CLAIM: &[Param] = &[SESSION, Param::number("token", 1).says("Only the grant with this token.")];

/// A session in the path.
pub const SESSION_ID: Param = Param::session("id").says("The session.").in_path();
