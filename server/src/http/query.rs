//! ① The parameters of a request: each known, each given once, all bytes until asked for as something.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use coracle_api::{Code, Problem, Span};
use http::Uri;
use percent_encoding::percent_decode;

use super::problem::{Answer, Refused, bad_query};

/// More parameters than this are refused unread.
const PARAMETERS: usize = 64;
/// Room for the names that most calls ask for.
const ASKED: usize = 16;

/// Parameters that may be given more than once.
const REPEATED: &[&str] = &["if_held", "tag", "exclude", "receipt", "acks"];

/// The query of a URI. Parameters are taken by name; what is left at the end is unknown and refused, so that a
/// typo is never silent.
#[derive(Debug, Default)]
pub struct Query {
    uri: Uri,
    params: Vec<Param>,
    /// The names asked for so far: what an unknown one could have been. Empty if no parameter was given.
    asked: Vec<Cow<'static, str>>,
}

#[derive(Debug)]
struct Param {
    name: Cow<'static, str>,
    /// Range of the raw value in the query.
    value: std::ops::Range<usize>,
    taken: bool,
}

impl Query {
    /// # Errors
    /// Too many parameters, or one given twice that is not [`REPEATED`].
    pub fn parse(uri: &Uri) -> Answer<Self> {
        let Some(text) = uri.query() else { return Ok(Self::default()) };
        let mut params: Vec<Param> = Vec::new();
        let mut start = 0;
        for part in text.split('&') {
            let end = start + part.len();
            if !part.is_empty() {
                if params.len() == PARAMETERS {
                    let detail = format!("too many parameters max={PARAMETERS}");
                    return Err(Problem::new(Code::InvalidArgument, detail).with("max", PARAMETERS).into());
                }
                let split = part.find('=').unwrap_or(part.len());
                let name = decode_name(&part[..split])?;
                if !REPEATED.contains(&&*name) && params.iter().any(|p| p.name == name) {
                    return Err(bad_query(&name, "given twice"));
                }
                params.push(Param { name, value: (start + split + 1).min(end)..end, taken: false });
            }
            start = end + 1;
        }
        Ok(Self { uri: uri.clone(), params, asked: Vec::with_capacity(ASKED) })
    }

    /// Whether one of these parameters was given.
    pub fn has(&self, names: &[&str]) -> bool {
        self.params.iter().any(|param| names.contains(&&*param.name))
    }

    /// The decoded value of a parameter; `None` if it was not given.
    pub fn bytes(&mut self, name: &'static str) -> Option<Vec<u8>> {
        self.take(name).map(Cow::into_owned)
    }

    /// Remember what is asked for, for the one who gave something else.
    fn ask(&mut self, name: impl Into<Cow<'static, str>>) {
        if !self.params.is_empty() {
            self.asked.push(name.into());
        }
    }

    fn take(&mut self, name: &'static str) -> Option<Cow<'_, [u8]>> {
        self.ask(name);
        let query = self.uri.query().unwrap_or_default();
        let param = self.params.iter_mut().find(|p| !p.taken && p.name == name)?;
        param.taken = true;
        Some(decode(&query[param.value.clone()]))
    }

    /// # Errors
    /// Not UTF-8.
    pub fn text(&mut self, name: &'static str) -> Answer<Option<String>> {
        let Some(bytes) = self.take(name) else { return Ok(None) };
        match String::from_utf8(bytes.into_owned()) {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(bad_query(name, "not UTF-8")),
        }
    }

    /// All values of a parameter that may be repeated, in their order.
    ///
    /// # Errors
    /// One that is not UTF-8.
    pub fn texts(&mut self, name: &'static str) -> Answer<Vec<String>> {
        let mut texts = Vec::new();
        while let Some(text) = self.text(name)? {
            texts.push(text);
        }
        Ok(texts)
    }

    /// The parameters whose names start with `prefix`, by the rest of their names: `meta.zone=east`.
    ///
    /// # Errors
    /// A value that is not UTF-8.
    pub fn under(&mut self, prefix: &str) -> Answer<Vec<(String, String)>> {
        self.ask(format!("{prefix}*"));
        let query = self.uri.query().unwrap_or_default();
        let mut found = Vec::new();
        for param in self.params.iter_mut().filter(|p| !p.taken && p.name.starts_with(prefix)) {
            param.taken = true;
            let value = String::from_utf8(decode(&query[param.value.clone()]).into_owned());
            let value = value.map_err(|_| bad_query(&param.name, "not UTF-8"))?;
            found.push((param.name[prefix.len()..].to_owned(), value));
        }
        Ok(found)
    }

    /// Whether a parameter is given with just this value; any other is left for somebody else to take.
    pub fn takes(&mut self, name: &'static str, value: &[u8]) -> bool {
        self.ask(name);
        let query = self.uri.query().unwrap_or_default();
        let found = self.params.iter_mut().find(|p| !p.taken && p.name == name);
        let Some(param) = found.filter(|p| *decode(&query[p.value.clone()]) == *value) else { return false };
        param.taken = true;
        true
    }

    /// `?name`, `?name=true`, `?name=1`; `false` and `0` say no.
    ///
    /// # Errors
    /// Anything else.
    pub fn flag(&mut self, name: &'static str) -> Answer<Option<bool>> {
        match self.take(name).as_deref() {
            None => Ok(None),
            Some(b"" | b"true" | b"1") => Ok(Some(true)),
            Some(b"false" | b"0") => Ok(Some(false)),
            Some(_) => Err(bad_query(name, "true or false")),
        }
    }

    /// # Errors
    /// Not a decimal number in the range.
    pub fn number(&mut self, name: &'static str, range: RangeInclusive<u64>) -> Answer<Option<u64>> {
        let Some(bytes) = self.take(name) else { return Ok(None) };
        number(&bytes, &range).map(Some).ok_or_else(|| out_of_range(name, &range))
    }

    /// # Errors
    /// Not a decimal number, perhaps with a minus, in the range.
    pub fn integer(&mut self, name: &'static str, range: RangeInclusive<i64>) -> Answer<Option<i64>> {
        let Some(bytes) = self.take(name) else { return Ok(None) };
        integer(&bytes).filter(|number| range.contains(number)).map(Some).ok_or_else(|| {
            bad_query(name, format!("a whole number min={} max={}", range.start(), range.end()))
        })
    }

    /// # Errors
    /// Not a duration in the range.
    pub fn span(&mut self, name: &'static str, range: RangeInclusive<Span>) -> Answer<Option<Span>> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        span(name, &text, &range).map(Some)
    }

    /// One of a few words.
    ///
    /// # Errors
    /// Another word.
    pub fn word<T: Copy>(&mut self, name: &'static str, words: &[(&str, T)]) -> Answer<Option<T>> {
        let Some(bytes) = self.take(name) else { return Ok(None) };
        let found = words.iter().find(|(word, _)| word.as_bytes() == &*bytes).map(|(_, value)| *value);
        found.map(Some).ok_or_else(|| {
            let list: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            bad_query(name, format!("one of {}", list.join(", ")))
        })
    }

    /// # Errors
    /// A parameter that nobody has taken.
    pub fn done(&self) -> Answer<()> {
        match self.params.iter().find(|p| !p.taken) {
            None => Ok(()),
            Some(param) => Err(Problem::new(
                Code::UnknownParameter,
                format!("the parameter is not known here name={}", param.name),
            )
            .with("name", &param.name)
            .with("known", self.asked.iter().collect::<BTreeSet<_>>())
            .into()),
        }
    }

    /// The parameters in the order of their names without `idempotency_key`: what an idempotent retry must repeat.
    pub fn canonical(&self) -> Vec<(&str, &str)> {
        let query = self.uri.query().unwrap_or_default();
        let mut all: Vec<_> = self
            .params
            .iter()
            .filter(|p| p.name != "idempotency_key")
            .map(|p| (&*p.name, &query[p.value.clone()]))
            .collect();
        all.sort_unstable();
        all
    }
}

/// A duration with its bounds.
///
/// # Errors
/// Not a duration, or out of the range.
pub fn span(name: &str, text: &str, range: &RangeInclusive<Span>) -> Answer<Span> {
    let span: Span = text.parse().map_err(|e: coracle_api::InvalidSpan| bad_query(name, e.to_string()))?;
    if range.contains(&span) {
        Ok(span)
    } else {
        Err(bad_query(name, format!("out of range min={} max={} actual={span}", range.start(), range.end())))
    }
}

/// Decimal digits only: no sign, no space.
pub fn number(text: &[u8], range: &RangeInclusive<u64>) -> Option<u64> {
    if text.is_empty() || text.len() > 20 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = std::str::from_utf8(text).ok()?.parse().ok()?;
    range.contains(&number).then_some(number)
}

/// Decimal digits, perhaps behind a minus: no plus, no space.
pub fn integer(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    if digits.is_empty() || digits.len() > 19 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn out_of_range(name: &str, range: &RangeInclusive<u64>) -> Refused {
    bad_query(name, format!("a whole number min={} max={}", range.start(), range.end()))
}

fn decode_name(raw: &str) -> Answer<Cow<'static, str>> {
    // The names in use never need decoding; knowing them saves an allocation each.
    const KNOWN: &[&str] =
        &["session", "consistency", "wait", "after", "ttl", "watch", "prefix", "limit", "cursor", "key"];
    if let Some(known) = KNOWN.iter().find(|k| **k == raw) {
        return Ok(Cow::Borrowed(known));
    }
    match String::from_utf8(decode(raw).into_owned()) {
        Ok(name) if name.len() <= 256 => Ok(Cow::Owned(name)),
        _ => {
            Err(Problem::new(Code::InvalidArgument, "a parameter's name is not UTF-8 or over 256 bytes")
                .into())
        }
    }
}

/// Percent-decoding, with `+` as a space.
fn decode(raw: &str) -> Cow<'_, [u8]> {
    if raw.bytes().any(|b| b == b'+') {
        let spaced: Vec<u8> = raw.bytes().map(|b| if b == b'+' { b' ' } else { b }).collect();
        Cow::Owned(percent_decode(&spaced).collect())
    } else if raw.bytes().any(|b| b == b'%') {
        Cow::Owned(percent_decode(raw.as_bytes()).collect())
    } else {
        Cow::Borrowed(raw.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Answer<Query> {
        Query::parse(&format!("/x?{query}").parse().unwrap())
    }

    fn detail<T: std::fmt::Debug>(answer: Answer<T>) -> String {
        answer.unwrap_err().0.detail
    }

    #[test]
    fn values_come_decoded_and_once() {
        let mut query = parse("a=%00%ff&b=x+y%2B&keep&limit=7&empty=&mode=shared").unwrap();
        assert_eq!(query.bytes("a"), Some(vec![0, 0xff]));
        assert_eq!(query.text("b").unwrap().as_deref(), Some("x y+"));
        assert_eq!(query.flag("keep").unwrap(), Some(true));
        assert_eq!(query.number("limit", 1..=7).unwrap(), Some(7));
        assert_eq!(parse("d=-7").unwrap().integer("d", -7..=7).unwrap(), Some(-7));
        assert_eq!(query.text("empty").unwrap().as_deref(), Some(""));
        assert_eq!(query.word("mode", &[("exclusive", 0), ("shared", 1)]).unwrap(), Some(1));
        assert_eq!(query.text("absent").unwrap(), None);
        query.done().unwrap();
    }

    #[test]
    fn bad_parameters_are_named() {
        assert!(detail(parse("a=1&a=2")).contains("given twice in=query name=a"));
        assert!(parse("if_held=locks/a;token=1&if_held=locks/b;token=2").is_ok());
        let mut query = parse("whatch=1&n=8&m=-1&big=18446744073709551616&t=1x&f=maybe&u=%ff&w=x").unwrap();
        assert!(detail(query.number("n", 1..=7)).contains("min=1 max=7 in=query name=n"));
        assert!(detail(query.number("m", 0..=7)).contains("name=m"));
        assert!(detail(query.number("big", 0..=u64::MAX)).contains("name=big"));
        for bad in ["-8", "+1", "--1", "-", "", "1.0", "9223372036854775808", "0x1"] {
            let answer =
                parse(&format!("d={}", bad.replace('+', "%2B"))).unwrap().integer("d", -7..=i64::MAX);
            assert!(detail(answer).contains("min=-7"), "{bad}");
        }
        assert!(detail(query.span("t", Span::ZERO..=Span::MAX)).contains("name=t"));
        assert!(detail(query.flag("f")).contains("true or false"));
        assert!(detail(query.text("u")).contains("not UTF-8"));
        assert!(detail(query.word("w", &[("a", ()), ("b", ())])).contains("one of a, b"));
        let problem = query.done().unwrap_err().0;
        assert_eq!((problem.code, &problem.extra["name"]), (Code::UnknownParameter, &"whatch".into()));
        assert_eq!(problem.extra["known"], serde_json::json!(["big", "f", "m", "n", "t", "u", "w"]));
    }

    #[test]
    fn sixty_four_parameters_and_no_more() {
        let many = |n: usize| (0..n).map(|i| format!("p{i}=1")).collect::<Vec<_>>().join("&");
        assert!(parse(&many(64)).is_ok());
        assert!(detail(parse(&many(65))).contains("max=64"));
        assert!(parse("&&&").unwrap().done().is_ok());
    }

    #[test]
    fn the_canonical_form_ignores_order_and_the_key() {
        let one = parse("b=2&a=1&idempotency_key=x").unwrap();
        let two = parse("idempotency_key=y&a=1&b=2").unwrap();
        assert_eq!(one.canonical(), two.canonical());
        assert_ne!(one.canonical(), parse("a=1&b=3").unwrap().canonical());
    }
}
