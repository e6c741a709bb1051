//! ① One endpoint: what is routed and what is documented, said once.
//!
//! A row of a route table is an [`Endpoint`]; the router and the OpenAPI document are both made from the rows, so that
//! nothing is served undocumented and nothing documented is missing. Sets of parameters that go together have one word
//! each: `reads`, `waits`, `watches`, `pages`, `trio`, `changes`.

use coracle_api::{Code, Frame};
use http::Method;
use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::call::Call;
use super::params::{self, Param};
use super::problem::Answer;
use super::router::Handler;

/// Asks a generator for the schema of one type.
pub type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// What a request carries.
#[derive(Clone, Copy)]
pub enum Body {
    None,
    /// The body is the value; its content type is kept with it.
    Value,
    /// A JSON object; true: it may be absent.
    Json(SchemaOf, bool),
}

/// What a good answer carries.
#[derive(Clone, Copy)]
pub enum Content {
    None,
    /// A stored value with its stored type.
    Value,
    Text(&'static str),
    Json(SchemaOf),
}

/// One row of a route table.
pub struct Endpoint {
    pub method: Method,
    /// As the router takes it: `/v1/kv/{*key}`.
    pub path: &'static str,
    pub handler: Handler,
    /// `operationId`, where it does not follow from the path.
    pub name: &'static str,
    pub summary: &'static str,
    pub more: &'static str,
    pub params: Vec<Param>,
    /// A parameter, one of several, without which the request is not complete.
    pub needs: &'static str,
    /// Words that `format` takes.
    pub formats: Vec<&'static str>,
    pub body: Body,
    /// A body that is taken.
    pub sample: &'static str,
    pub answers: Vec<(u16, Content)>,
    /// The frames of the stream this can answer, and the parameter that asks for it.
    pub stream: Option<(SchemaOf, &'static str)>,
    pub problems: Vec<Code>,
    /// It goes through the log and takes guards and an idempotency key.
    pub changes: bool,
}

/// The rows of one family.
pub struct Family {
    pub name: &'static str,
    pub says: &'static str,
    pub rows: Vec<Endpoint>,
}

fn row<H, F>(method: Method, path: &'static str, handler: H) -> Endpoint
where
    H: Fn(Call) -> F + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    Endpoint {
        method,
        path,
        handler: Box::new(move |call| Box::pin(handler(call))),
        name: "",
        summary: "",
        more: "",
        params: Vec::new(),
        needs: "",
        formats: Vec::new(),
        body: Body::None,
        sample: "",
        answers: Vec::new(),
        stream: None,
        problems: Vec::new(),
        changes: false,
    }
}

macro_rules! methods {
    ($($name:ident $method:ident;)*) => {
        $(pub fn $name<H, F>(path: &'static str, handler: H) -> Endpoint
        where
            H: Fn(Call) -> F + Send + Sync + 'static,
            F: Future<Output = Answer> + Send + 'static,
        {
            row(Method::$method, path, handler)
        })*
    };
}

methods! { get GET; head HEAD; put PUT; post POST; delete DELETE; }

impl Endpoint {
    /// One sentence for whoever reads the table.
    pub fn says(mut self, summary: &'static str) -> Self {
        self.summary = summary;
        self
    }

    /// A name for code that is generated from the document.
    pub fn named(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }

    /// What the sentence leaves out.
    pub fn more(mut self, more: &'static str) -> Self {
        self.more = more;
        self
    }

    /// Parameters of its own: of the query, and of the path where `{name}` is not a plain name.
    pub fn takes(mut self, params: &[Param]) -> Self {
        for param in params {
            let same = |known: &&mut Param| known.name == param.name && known.place == param.place;
            match self.params.iter_mut().find(same) {
                // The same word for two things, if a list or a wait is a watch as well.
                Some(known) if param.name == params::LIMIT.name => {
                    *known = params::LIMIT_OF_BOTH.with(known.with);
                }
                Some(known) if param.name == params::AFTER_FRAMES.name => *known = params::AFTER_OF_BOTH,
                Some(_) => panic!("{} {}: {} is there twice", self.method, self.path, param.name),
                None => self.params.push(*param),
            }
        }
        self
    }

    /// One of several parameters must be there: such as this one.
    pub fn needs(mut self, pair: &'static str) -> Self {
        self.needs = pair;
        self
    }

    /// `consistency` and what goes with it.
    pub fn reads(self) -> Self {
        self.takes(params::READ)
    }

    /// A read with a long poll: `wait` and `after`, as JSON.
    pub fn waits(self) -> Self {
        let mut this =
            self.reads().takes(params::LONG_POLL).formats(&["json"]).problems(&[Code::TooManyWaiters]);
        this.answers.push((304, Content::None));
        this
    }

    /// `watch=true`: a stream of changes, with snapshots of `I`.
    pub fn watches<I: JsonSchema>(self) -> Self {
        self.takes(&[params::WATCH])
            .takes(params::WATCHING)
            .streams::<Frame<I>>("watch=true")
            .problems(&[Code::Compacted])
    }

    /// A watch with or without saying so.
    pub fn always_watches<I: JsonSchema>(self) -> Self {
        let alone: Vec<_> = params::WATCHING.iter().map(|param| param.with("")).collect();
        self.reads()
            .takes(&[params::WATCH])
            .takes(&alone)
            .streams::<Frame<I>>("")
            .problems(&[Code::Compacted])
    }

    /// Words that `format` takes.
    pub fn formats(mut self, words: &[&'static str]) -> Self {
        self.formats
            .extend(words.iter().filter(|word| !self.formats.contains(word)).copied().collect::<Vec<_>>());
        self
    }

    /// A page of a list at one revision: `limit`, `cursor`, `revision`.
    pub fn pages(self) -> Self {
        self.takes(&[params::LIMIT, params::CURSOR, params::REVISION])
            .problems(&[Code::Compacted, Code::CursorExpired])
    }

    /// `session`, `ttl` or `hold=true`: what the claim lives with.
    pub fn trio(self) -> Self {
        self.takes(params::TRIO).problems(&[Code::SessionExpired, Code::TooLarge])
    }

    /// It changes state through the log.
    pub fn changes(mut self) -> Self {
        self.changes = true;
        self.takes(params::CHANGE).problems(CHANGE_PROBLEMS)
    }

    /// The body is a value.
    pub fn value(mut self) -> Self {
        self.body = Body::Value;
        self.problems(&[Code::TooLarge])
    }

    /// The body is JSON; an absent one is the default.
    pub fn json<T: JsonSchema>(mut self) -> Self {
        self.body = Body::Json(SchemaGenerator::subschema_for::<T>, true);
        self.problems(&[Code::TooLarge, Code::UnsupportedMediaType])
    }

    /// The body is JSON and must be there.
    pub fn json_required<T: JsonSchema>(mut self) -> Self {
        self = self.json::<T>();
        self.body = Body::Json(SchemaGenerator::subschema_for::<T>, false);
        self
    }

    /// A body that is taken, where not every one is.
    pub fn sample(mut self, sample: &'static str) -> Self {
        self.sample = sample;
        self
    }

    /// A good answer in JSON.
    pub fn answers<T: JsonSchema>(mut self, status: u16) -> Self {
        self.answers.push((status, Content::Json(SchemaGenerator::subschema_for::<T>)));
        self
    }

    /// A good answer that is not JSON.
    pub fn answers_with(mut self, status: u16, content: Content) -> Self {
        self.answers.push((status, content));
        self
    }

    /// A stream of frames instead of an answer, if `when` is asked for.
    pub fn streams<F: JsonSchema>(mut self, when: &'static str) -> Self {
        self.stream = Some((SchemaGenerator::subschema_for::<F>, when));
        self.formats(&["ndjson", "sse"]).problems(&[Code::TooManyStreams])
    }

    /// Reasons of its own to fail, beyond [`COMMON`].
    pub fn problems(mut self, codes: &[Code]) -> Self {
        for code in codes {
            if !self.problems.contains(code) {
                self.problems.push(*code);
            }
        }
        self
    }

    /// The path as the document writes it.
    pub fn documented_path(&self) -> String {
        self.path.replace("{*", "{")
    }

    /// Every reason to fail.
    pub fn all_problems(&self) -> Vec<Code> {
        let foreign: &[Code] = if self.method == Method::GET || self.method == Method::HEAD {
            &[]
        } else {
            &[Code::CrossOriginDenied]
        };
        let mut all: Vec<Code> = COMMON.iter().chain(foreign).chain(&self.problems).copied().collect();
        // In the order of the table of codes, each once.
        all.sort_by_key(|code| Code::ALL.iter().position(|known| known == code));
        all.dedup();
        all
    }
}

/// Reasons to fail that any request may meet.
pub const COMMON: &[Code] = &[
    Code::InvalidArgument,
    Code::UnknownParameter,
    Code::HostNotAllowed,
    Code::Internal,
    Code::NoLeader,
    Code::NotReady,
    Code::Overloaded,
    Code::ShuttingDown,
    Code::CommitTimeout,
];

/// Reasons to fail of what goes through the log.
const CHANGE_PROBLEMS: &[Code] =
    &[Code::FenceStale, Code::IdempotencyKeyReused, Code::QuotaExceeded, Code::TooManyOps, Code::TooLarge];

/// Answered by no endpoint, because there is none: another path or another method.
pub const OUTSIDE: &[Code] = &[Code::RouteNotFound, Code::MethodNotAllowed];
