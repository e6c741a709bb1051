//! The few protobuf messages of etcd's API that are measured, encoded by hand so that the build needs no `protoc`.

use anyhow::{Context, Result, bail};

/// A message being written: field numbers are those of etcd's `rpc.proto`.
#[derive(Default)]
pub struct Message(Vec<u8>);

impl Message {
    pub fn number(mut self, field: u8, value: u64) -> Self {
        // proto3 leaves out what is zero.
        if value != 0 {
            self.0.push(field << 3);
            self.varint(value);
        }
        self
    }

    pub fn bytes(mut self, field: u8, value: &[u8]) -> Self {
        self.0.push(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    pub fn message(self, field: u8, inner: &Self) -> Self {
        self.bytes(field, &inner.0)
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.0.push(value.to_le_bytes()[0]);
    }
}

#[derive(Debug, PartialEq, Eq)]
pub enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The value of a field, the last one if it occurs more than once.
pub fn field(mut message: &[u8], wanted: u64) -> Result<Option<Field<'_>>> {
    let mut found = None;
    while !message.is_empty() {
        let (number, value) = take_field(&mut message)?;
        if number == wanted {
            found = Some(value);
        }
    }
    Ok(found)
}

/// All values of a bytes, string or message field that may occur more than once; ends with the first error.
pub fn each(mut message: &[u8], wanted: u64) -> impl Iterator<Item = Result<&[u8]>> {
    std::iter::from_fn(move || {
        while !message.is_empty() {
            match take_field(&mut message) {
                Ok((number, Field::Bytes(value))) if number == wanted => return Some(Ok(value)),
                Ok(_) => {}
                Err(error) => {
                    message = b"";
                    return Some(Err(error));
                }
            }
        }
        None
    })
}

fn take_field<'a>(message: &mut &'a [u8]) -> Result<(u64, Field<'a>)> {
    let tag = take_varint(message)?;
    let value = match tag & 7 {
        0 => Field::Number(take_varint(message)?),
        2 => {
            let length = usize::try_from(take_varint(message)?)?;
            let (value, rest) =
                message.split_at_checked(length).context("protobuf field is longer than its message")?;
            *message = rest;
            Field::Bytes(value)
        }
        other => bail!("protobuf wire type is not used by etcd type={other}"),
    };
    Ok((tag >> 3, value))
}

/// A number field; zero if absent, as in proto3.
pub fn number(message: &[u8], wanted: u64) -> Result<u64> {
    match field(message, wanted)? {
        Some(Field::Number(value)) => Ok(value),
        Some(Field::Bytes(_)) => bail!("protobuf field is not a number field={wanted}"),
        None => Ok(0),
    }
}

/// A bytes, string or message field; empty if absent, as in proto3.
pub fn bytes(message: &[u8], wanted: u64) -> Result<&[u8]> {
    match field(message, wanted)? {
        Some(Field::Bytes(value)) => Ok(value),
        Some(Field::Number(_)) => bail!("protobuf field is not bytes field={wanted}"),
        None => Ok(b""),
    }
}

fn take_varint(message: &mut &[u8]) -> Result<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let Some((&byte, rest)) = message.split_first() else { bail!("protobuf number is cut off") };
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    bail!("protobuf number is longer than 64 bits")
}
