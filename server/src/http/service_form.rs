//! Services on the wire: what a registration may say, how an instance is shown.

use std::net::Ipv6Addr;

use coracle_api::{self as api, Ratio, Span};
use coracle_recipes::service::{
    self, Census, Description, Filter, Instance, Liveness, SCALE, SPAN_MS, Settings, Status,
};
use coracle_store::{Millis, Timestamp, View, limits};

use super::call::{Call, check_name};
use super::problem::{Answer, bad_body, bad_query, too_large};
use super::wire;

/// Weight of an instance that asks for none.
const WEIGHT: u16 = 100;
/// Bytes of a scheme: also those of names of ports.
const SCHEME_BYTES: usize = 64;

/// What an instance says of itself, checked.
pub fn description(said: api::Registration) -> Answer<Description> {
    let api::Registration { address, port, ports, scheme, version, zone, weight, tags, meta, status: _ } =
        said;
    check_address(&address)?;
    if port == Some(0) || ports.values().any(|port| *port == 0) {
        return Err(bad_body("port: 1 to 65535"));
    }
    let weight = weight.unwrap_or(WEIGHT);
    if weight > SCALE {
        return Err(bad_body(format!("weight: a whole number min=0 max={SCALE}")));
    }
    let scheme = scheme.unwrap_or_default();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    if scheme.len() > SCHEME_BYTES || !scheme.chars().all(plain) {
        return Err(bad_body(format!("scheme: letters, digits, + - . and at most {SCHEME_BYTES} bytes")));
    }
    let mut texts: Vec<(&str, &String)> = Vec::new();
    texts.extend(version.iter().map(|text| ("version", text)));
    texts.extend(zone.iter().map(|text| ("zone", text)));
    texts.extend(tags.iter().map(|text| ("tags", text)));
    texts.extend(ports.keys().map(|text| ("ports", text)));
    texts.extend(meta.keys().map(|text| ("meta", text)));
    for (name, text) in texts {
        check_name(text).map_err(|detail| bad_body(format!("{name}: {detail}")))?;
    }
    let size = tags.iter().map(|tag| tag.len() + 1).sum::<usize>()
        + ports.keys().map(|name| name.len() + 3).sum::<usize>()
        + meta.iter().map(|(name, value)| name.len() + value.len() + 2).sum::<usize>();
    if size > limits::META_BYTES {
        return Err(too_large("metadata_bytes", limits::META_BYTES as u64, Some(size as u64)));
    }
    let text = |text: Option<String>| text.unwrap_or_default().into();
    Ok(Description {
        address: address.into(),
        port: port.unwrap_or(0),
        ports: ports.into_iter().map(|(name, port)| (name.into(), port)).collect(),
        scheme: scheme.into(),
        version: text(version),
        zone: text(zone),
        weight,
        tags: tags.into_iter().map(Into::into).collect(),
        meta: meta.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
    })
}

/// Something that can stand in `host:port` and be dialled: readers paste it into URLs and shells.
fn check_address(address: &str) -> Answer<()> {
    if address.is_empty() {
        return Err(bad_body("address: required"));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if address.len() > 255 {
        return Err(bad_body(format!("address: 1 to 255 bytes actual={}", address.len())));
    }
    if address.contains(':') && address.parse::<Ipv6Addr>().is_err() {
        return Err(bad_body("address: a host name or an IP address, the port goes into port"));
    }
    if !address.contains(':') && (!address.chars().all(plain) || address.starts_with('-')) {
        return Err(bad_body("address: a host name or an IP address"));
    }
    Ok(())
}

pub fn settings(config: &api::ServiceConfig) -> Answer<Settings> {
    let default = Settings::default();
    let most = Span::from_millis_saturating(SPAN_MS);
    let span = |name: &str, given: Option<Span>, default: Millis| match given {
        Some(span) if span > most => Err(bad_body(format!("{name}: out of range max={most} actual={span}"))),
        Some(span) => Ok(Millis(span.as_millis())),
        None => Ok(default),
    };
    if config.eject_errors.is_some_and(|errors| errors > SCALE) {
        return Err(bad_body(format!("eject_errors: a whole number min=0 max={SCALE}")));
    }
    Ok(Settings {
        protect: config.protect.unwrap_or_default().thousandths(),
        deregister_after: span("deregister_after", config.deregister_after, default.deregister_after)?,
        slow_start: span("slow_start", config.slow_start, default.slow_start)?,
        eject_errors: config.eject_errors.unwrap_or(default.eject_errors),
        eject_for: span("eject_for", config.eject_for, default.eject_for)?,
    })
}

pub fn config(settings: &Settings) -> api::ServiceConfig {
    let span = |span: Millis| Some(Span::from_millis_saturating(span.0));
    api::ServiceConfig {
        protect: Ratio::from_thousandths(settings.protect),
        deregister_after: span(settings.deregister_after),
        slow_start: span(settings.slow_start),
        eject_errors: Some(settings.eject_errors),
        eject_for: span(settings.eject_for),
    }
}

/// A service in a list; also one that is nothing but a name.
pub fn summary(view: View<'_>, name: &str) -> api::Service {
    let Census { instances, up, ejected } = service::census(view, name);
    api::Service {
        name: name.to_owned(),
        instances,
        healthy: up - ejected,
        ejected,
        config: service::settings(view, name).as_ref().map(config),
    }
}

/// An instance as it is shown, without what only the leader knows.
pub fn shown(id: &str, instance: &Instance) -> api::Instance {
    let Description { address, port, ports, scheme, version, zone, weight, tags, meta } =
        &instance.description;
    let time = |at: Option<Timestamp>| at.map(|at| api::Instant::from_unix_ms(at.0));
    let text = |text: &str| text.to_owned();
    api::Instance {
        id: id.to_owned(),
        generation: instance.generation.0,
        address: text(address),
        port: Some(*port).filter(|port| *port > 0),
        ports: ports.iter().map(|(name, port)| (text(name), *port)).collect(),
        scheme: wire::optional(scheme),
        version: wire::optional(version),
        zone: wire::optional(zone),
        weight: *weight,
        tags: tags.iter().map(|tag| text(tag)).collect(),
        meta: meta.iter().map(|(name, value)| (text(name), text(value))).collect(),
        status: status_word(instance.status()),
        load: instance.load.and_then(Ratio::from_thousandths),
        liveness: match instance.liveness {
            Liveness::Permanent => api::Liveness::Permanent,
            Liveness::Session(_) => api::Liveness::Session,
            Liveness::Ttl(..) => api::Liveness::Ttl,
        },
        session: instance.session().map(wire::session),
        ttl: match instance.liveness {
            Liveness::Ttl(_, ttl) => Some(Span::from_millis_saturating(ttl.0)),
            Liveness::Permanent | Liveness::Session(_) => None,
        },
        valid_for: None,
        registered: api::Instant::from_unix_ms(instance.registered.0),
        up_since: time(instance.up_since),
        ejected_until: time(instance.ejected),
        lost: time(instance.lost),
        leaves: time(instance.leaves),
    }
}

/// `tag` (repeatable), `meta.NAME`, `version`, `status`, `healthy`; and `zone`, which means something else to a pick.
pub fn filter(call: &mut Call, with_zone: bool) -> Answer<Filter> {
    let boxed = |text: Option<String>| text.map(Into::into);
    let words = api::Status::WORDS.map(|(word, it)| (word, status(it)));
    Ok(Filter {
        tags: call.query.texts("tag")?.into_iter().map(Into::into).collect(),
        meta: call
            .query
            .under("meta.")?
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect(),
        zone: if with_zone { boxed(call.query.text("zone")?) } else { None },
        version: boxed(call.query.text("version")?),
        status: call.query.word("status", &words)?,
        healthy: call.query.flag("healthy")?.unwrap_or(false),
    })
}

/// A part of the whole, in thousandths.
pub fn ratio(call: &mut Call, name: &'static str) -> Answer<Option<u16>> {
    let Some(text) = call.query.text(name)? else { return Ok(None) };
    let ratio: Ratio = text.parse().map_err(|error: api::InvalidRatio| bad_query(name, error.to_string()))?;
    Ok(Some(ratio.thousandths()))
}

pub fn status(status: api::Status) -> Status {
    match status {
        api::Status::Starting => Status::Starting,
        api::Status::Passing => Status::Passing,
        api::Status::Warning => Status::Warning,
        api::Status::Critical => Status::Critical,
        api::Status::Draining => Status::Draining,
        api::Status::Maintenance => Status::Maintenance,
    }
}

pub fn status_word(status: Status) -> api::Status {
    match status {
        Status::Starting => api::Status::Starting,
        Status::Passing => api::Status::Passing,
        Status::Warning => api::Status::Warning,
        Status::Critical => api::Status::Critical,
        Status::Draining => api::Status::Draining,
        Status::Maintenance => api::Status::Maintenance,
    }
}
