//! ① Bodies: read within their limit and time, with and without a length.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use coracle_api::{Code, OCTET_STREAM, Problem, TEXT};
use coracle_store::ContentType;
use http::{HeaderMap, header};
use http_body::Body as _;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;

use super::call::{Call, essence};
use super::message::Request;
use super::piece;
use super::problem::{Answer, Refused, bad_body, too_large};

/// Largest JSON body that is not a bare value: a transaction of 128 operations may carry several values.
pub const JSON_BYTES: usize = 4 * 1024 * 1024;
/// Brackets within brackets in a JSON body, embedded values included.
const JSON_DEPTH: usize = 128;
/// Of a body over its limit so much is still read, so that the client reads the answer instead of a reset.
const DRAIN_BYTES: u64 = 16 * 1024 * 1024;
/// And for so long.
const DRAIN_TIME: Duration = Duration::from_secs(2);

impl Call {
    /// The whole body, at most `max` bytes; `limit` names the limit.
    pub async fn read_body(&mut self, limit: &'static str, max: usize) -> Answer<Bytes> {
        let announced =
            self.headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
        let Some(body) = self.body.take().filter(|body| !body.is_end_stream()) else {
            return Ok(Bytes::new());
        };
        if let Some(actual) = announced.filter(|actual| *actual > max as u64) {
            if actual <= DRAIN_BYTES && !self.headers.contains_key(header::EXPECT) {
                drain(body).await;
            }
            return Err(too_large(limit, max as u64, Some(actual)));
        }
        let timeout = super::call::body_timeout(&self.edge);
        // Nearly every body is there already: no timer for those.
        let mut collecting = pin!(collect(body, limit, max));
        match poll_fn(|context| Poll::Ready(collecting.as_mut().poll(context))).await {
            Poll::Ready(done) => done,
            Poll::Pending => match tokio::time::timeout(timeout, collecting).await {
                Ok(done) => done,
                Err(_) => Err(bad_body("the body did not come in time")),
            },
        }
    }

    /// A JSON body; an empty one is the default. Answers the bytes too, for the idempotency key.
    pub async fn json<T: DeserializeOwned + Default>(&mut self) -> Answer<(T, Bytes)> {
        match essence(&self.headers).as_deref() {
            // What curl -d sends, and no type at all: taken for JSON, never parsed as a form.
            None | Some("" | "application/json" | "application/x-www-form-urlencoded" | "text/plain") => {}
            Some(other) if other.ends_with("+json") => {}
            Some(other) => {
                let detail = format!("application/json is taken here actual={other}");
                return Err(Problem::new(Code::UnsupportedMediaType, detail).into());
            }
        }
        let bytes = self.read_body("body_bytes", JSON_BYTES).await?;
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok((T::default(), bytes));
        }
        // A struct can also be read from a list, which is nobody's intention.
        if bytes.iter().find(|b| !b.is_ascii_whitespace()) != Some(&b'{') {
            return Err(bad_body("not the JSON expected here: an object is expected"));
        }
        if too_deep(&bytes) {
            return Err(bad_body(format!("nested too deeply max={JSON_DEPTH}")));
        }
        let value = serde_json::from_slice(&bytes)
            .map_err(|e| bad_body(format!("not the JSON expected here: {e}")))?;
        Ok((value, bytes))
    }

    /// The body of a request that has none: read, so that the connection stays usable, and ignored if small.
    pub async fn no_body(&mut self) -> Answer<Bytes> {
        self.read_body("body_bytes", 64 * 1024).await
    }

    /// A bare value of at most the configured size.
    pub async fn value(&mut self) -> Answer<Bytes> {
        let max = usize::try_from(self.edge.config.max_value.0).unwrap_or(usize::MAX);
        self.read_body("value_bytes", max).await
    }
}

async fn collect(mut body: Incoming, limit: &'static str, max: usize) -> Answer<Bytes> {
    let mut first = Bytes::new();
    let mut rest: Option<BytesMut> = None;
    while !body.is_end_stream()
        && let Some(frame) = poll_fn(|context| piece::take(&mut body, context)).await
    {
        let frame = frame.map_err(|e| bad_body(format!("the body is broken: {e}")))?;
        let Ok(data) = frame.into_data() else { continue };
        let so_far = rest.as_ref().map_or(first.len(), BytesMut::len);
        if so_far + data.len() > max {
            drain(body).await;
            return Err(too_large(limit, max as u64, None));
        }
        match &mut rest {
            Some(rest) => rest.extend_from_slice(&data),
            None if first.is_empty() => first = data,
            None => {
                let mut all = BytesMut::with_capacity((first.len() + data.len()) * 2);
                all.extend_from_slice(&first);
                all.extend_from_slice(&data);
                rest = Some(all);
            }
        }
    }
    Ok(rest.map_or(first, BytesMut::freeze))
}

fn too_deep(json: &[u8]) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                if depth > JSON_DEPTH {
                    return true;
                }
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// Read what a refused request still sends: a connection that is closed on a client that sends is reset, and takes the
/// answer along. Who asked whether to send has sent nothing.
pub async fn forget(request: Request) {
    if !request.headers().contains_key(header::EXPECT) {
        drain(request.into_body()).await;
    }
}

/// Read and forget, within reason: whoever still sends after that gets the reset.
async fn drain(mut body: Incoming) {
    let mut left = DRAIN_BYTES;
    // Nearly every body is there already: neither a timer nor a box for those.
    if poll_fn(|context| Poll::Ready(skip(&mut body, &mut left, context))).await.is_pending() {
        let reading = poll_fn(|context| skip(&mut body, &mut left, context));
        let _ = Box::pin(tokio::time::timeout(DRAIN_TIME, reading)).await;
    }
}

fn skip(body: &mut Incoming, left: &mut u64, context: &mut Context<'_>) -> Poll<()> {
    while !body.is_end_stream() {
        let Some(Ok(frame)) = ready!(piece::take(body, context)) else { break };
        let size = frame.data_ref().map_or(0, |d| d.len() as u64);
        match left.checked_sub(size) {
            Some(rest) => *left = rest,
            None => break,
        }
    }
    Poll::Ready(())
}

/// The content type to store with a raw body: what was given, unless it is what `curl` says for want of anything.
pub fn content_type(headers: &HeaderMap, body: &[u8]) -> Answer<ContentType> {
    let Some(given) = headers.get(header::CONTENT_TYPE) else { return Ok(untyped(body)) };
    let given = given.to_str().map_err(|_| invalid_type("not visible ASCII"))?.trim();
    let essence = given.split(';').next().unwrap_or_default().trim();
    if given.is_empty() || essence.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return Ok(untyped(body));
    }
    if given.len() > 255 {
        return Err(invalid_type("over 255 bytes"));
    }
    let (kind, subtype) = essence.split_once('/').unwrap_or_default();
    if kind.is_empty() || subtype.is_empty() || essence.contains([' ', '"', ',']) {
        return Err(invalid_type("not a media type"));
    }
    Ok(named(given, body))
}

/// A content type by its name.
pub fn named(given: &str, body: &[u8]) -> ContentType {
    if given.eq_ignore_ascii_case("application/json") {
        ContentType::Json
    } else if given.eq_ignore_ascii_case(OCTET_STREAM) {
        ContentType::Binary
    } else if given.eq_ignore_ascii_case(TEXT) && std::str::from_utf8(body).is_ok() {
        ContentType::Text
    } else {
        ContentType::Other(Box::new(given.into()))
    }
}

fn untyped(body: &[u8]) -> ContentType {
    if std::str::from_utf8(body).is_ok() { ContentType::Text } else { ContentType::Binary }
}

fn invalid_type(detail: &str) -> Refused {
    Problem::invalid("header", "content-type", detail).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(given: Option<&str>, body: &[u8]) -> Answer<ContentType> {
        let mut headers = HeaderMap::new();
        if let Some(given) = given {
            headers.insert(header::CONTENT_TYPE, given.parse().unwrap());
        }
        content_type(&headers, body)
    }

    #[test]
    fn depth_is_counted_outside_of_strings() {
        let nested = |n: usize| [vec![b'['; n], vec![b']'; n]].concat();
        assert!(!too_deep(&nested(JSON_DEPTH)));
        assert!(too_deep(&nested(JSON_DEPTH + 1)));
        assert!(!too_deep(format!("{{\"a\\\"\":\"{}\"}}", "[".repeat(1000)).as_bytes()));
        assert!(!too_deep("[]".repeat(1000).as_bytes()));
    }

    #[test]
    fn the_stored_content_type() {
        let other = |text: &str| ContentType::Other(Box::new(text.into()));
        for (given, body, expect) in [
            (None, &b"blue"[..], ContentType::Text),
            (None, b"\xff", ContentType::Binary),
            (Some("application/x-www-form-urlencoded"), b"a=b&c", ContentType::Text),
            (Some("Application/X-WWW-Form-Urlencoded; charset=x"), b"\xff", ContentType::Binary),
            (Some("application/json"), b"{}", ContentType::Json),
            (Some("application/json; charset=utf-8"), b"{}", other("application/json; charset=utf-8")),
            (Some("text/plain; charset=utf-8"), b"x", ContentType::Text),
            (Some("text/plain; charset=utf-8"), b"\xff", other("text/plain; charset=utf-8")),
            (Some("application/octet-stream"), b"x", ContentType::Binary),
            (Some("text/html"), b"<b>", other("text/html")),
        ] {
            assert_eq!(stored(given, body).unwrap(), expect, "{given:?}");
        }
        for bad in ["nonsense", "/", "a/", "text/plain, text/html", &"a/".repeat(128)] {
            assert!(stored(Some(bad), b"").is_err(), "{bad}");
        }
        assert!(stored(Some(&format!("a/{}", "b".repeat(253))), b"").is_ok());
        assert!(stored(Some(&format!("a/{}", "b".repeat(254))), b"").is_err());
    }
}
