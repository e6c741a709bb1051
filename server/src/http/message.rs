//! ① ⑦ Requests and answers with their bodies, as they pass between the connection and the handlers.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;

pub type Request = http::Request<Incoming>;
pub type Response = http::Response<Body>;

/// What an answer carries. Nearly all are whole: those do without the box and the table of functions of axum's body.
#[derive(Default)]
pub enum Body {
    #[default]
    Empty,
    Whole(Bytes),
    Streamed(body::Body),
}

impl Body {
    pub fn streamed(frames: impl Stream<Item = Bytes> + Send + 'static) -> Self {
        Self::Streamed(body::Body::from_stream(frames.map(Ok::<_, Infallible>)))
    }
}

impl<T: Into<Bytes>> From<T> for Body {
    fn from(bytes: T) -> Self {
        Self::Whole(bytes.into())
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Self::Streamed(frames) = &mut *self {
            return Pin::new(frames).poll_frame(context);
        }
        match std::mem::take(&mut *self) {
            Self::Whole(bytes) if !bytes.is_empty() => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            _ => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Streamed(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Streamed(_) => SizeHint::default(),
        }
    }
}
