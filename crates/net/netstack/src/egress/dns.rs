//! Messages of DNS (RFC 1035), as far as addresses of names go: questions, and answers to them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// Bytes of the head of a message.
const HEAD: usize = 12;
/// Bits of its flags: an answer; what kind of message; what went wrong.
const ANSWER: u16 = 0x8000;
const KIND: u16 = 0x7800;
const ERROR: u16 = 0x000f;
/// Types and class.
const A: u16 = 1;
const CNAME: u16 = 5;
const AAAA: u16 = 28;
const INTERNET: u16 = 1;
/// Longest name, most references in one, and most records that are looked at.
const MAX_NAME: usize = 255;
const MAX_JUMPS: usize = 16;
const MAX_RECORDS: usize = 64;

/// What a record says of its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// It has this address.
    Address(IpAddr),
    /// It is another name for this one.
    Alias(String),
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) id: u16,
    pub(super) name: String,
    /// Names, for how long they are so, and what they are.
    pub(super) records: Vec<(String, Duration, Record)>,
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|word| u16::from_be_bytes(*word))
}

/// The name at `at`, in small letters, and where it ends. `None` for one with characters that no host has.
fn name(bytes: &[u8], at: usize) -> Option<(String, usize)> {
    let (mut out, mut at, mut end, mut jumps) = (String::new(), at, None, 0);
    loop {
        let len = *bytes.get(at)?;
        match len {
            0 => return Some((out, end.unwrap_or(at + 1))),
            0xc0.. => {
                jumps += 1;
                if jumps > MAX_JUMPS {
                    return None;
                }
                end = end.or(Some(at + 2));
                at = usize::from(word(bytes, at)? & 0x3fff);
            }
            64.. => return None,
            _ => {
                let label = bytes.get(at + 1..at + 1 + usize::from(len))?;
                let usual = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
                if !label.iter().all(usual) || out.len() + label.len() >= MAX_NAME {
                    return None;
                }
                if !out.is_empty() {
                    out.push('.');
                }
                out.extend(label.iter().map(|byte| char::from(byte.to_ascii_lowercase())));
                at += 1 + usize::from(len);
            }
        }
    }
}

/// Number and name of the one question in `bytes`, and where it ends.
fn question(bytes: &[u8], flags: u16) -> Option<(u16, String, usize)> {
    if word(bytes, 2)? & (ANSWER | KIND) != flags || word(bytes, 4)? != 1 {
        return None;
    }
    let (name, end) = name(bytes, HEAD)?;
    (word(bytes, end + 2)? == INTERNET).then_some((word(bytes, 0)?, name, end + 4))
}

/// A question that says nothing else: its number, and the name.
pub(super) fn query(bytes: &[u8]) -> Option<(u16, String)> {
    let (id, name, _) = question(bytes, 0)?;
    (word(bytes, 6)? == 0 && word(bytes, 8)? == 0).then_some((id, name))
}

/// An answer in which nothing went wrong.
pub(super) fn answer(bytes: &[u8]) -> Option<Answer> {
    let (id, asked, mut at) = question(bytes, ANSWER)?;
    if word(bytes, 2)? & ERROR != 0 {
        return None;
    }
    let mut records = Vec::new();
    for _ in 0..usize::from(word(bytes, 6)?).min(MAX_RECORDS) {
        let (owner, end) = name(bytes, at)?;
        let (kind, class) = (word(bytes, end)?, word(bytes, end + 2)?);
        let seconds = u32::from_be_bytes(*bytes.get(end + 4..)?.first_chunk()?);
        let start = end + 10;
        at = start + usize::from(word(bytes, end + 8)?);
        let data = bytes.get(start..at)?;
        let record = match (kind, class) {
            (A, INTERNET) => {
                <[u8; 4]>::try_from(data).ok().map(|ip| Record::Address(Ipv4Addr::from(ip).into()))
            }
            (AAAA, INTERNET) => {
                <[u8; 16]>::try_from(data).ok().map(|ip| Record::Address(Ipv6Addr::from(ip).into()))
            }
            (CNAME, INTERNET) => name(bytes, start).map(|(alias, _)| Record::Alias(alias)),
            _ => None,
        };
        records.extend(record.map(|record| (owner, Duration::from_secs(seconds.into()), record)));
    }
    Some(Answer { id, name: asked, records })
}

#[cfg(test)]
pub(super) mod tests {
    use super::{Record, answer as read, query as asked};
    use std::time::Duration;

    fn labels(name: &str) -> Vec<u8> {
        let mut bytes: Vec<u8> =
            name.split('.').flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat()).collect();
        bytes.push(0);
        bytes
    }

    pub(in super::super) fn query(id: u16, name: &str) -> Vec<u8> {
        let head = [&id.to_be_bytes()[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
        [head, labels(name), vec![0, 1, 0, 1]].concat()
    }

    /// One address, behind an alias.
    pub(in super::super) fn answer(id: u16, name: &str, ip: [u8; 4], seconds: u32) -> Vec<u8> {
        let mut bytes = query(id, name);
        bytes[2] = 0x81;
        bytes[7] = 2;
        let alias = labels("alias.test");
        bytes.extend([&[0xc0, 12, 0, 5, 0, 1][..], &seconds.to_be_bytes(), &[0, alias.len() as u8]].concat());
        let at = bytes.len() as u8;
        bytes.extend(&alias);
        bytes.extend([&[0xc0, at, 0, 1, 0, 1][..], &seconds.to_be_bytes(), &[0, 4], &ip].concat());
        bytes
    }

    #[test]
    fn messages_are_read_or_not() {
        assert_eq!(asked(&query(7, "Www.Example-1.test")), Some((7, "www.example-1.test".into())));
        let bytes = answer(9, "a.test", [1, 2, 3, 4], 60);
        let found = read(&bytes).expect("an answer");
        let minute = Duration::from_secs(60);
        assert_eq!((found.id, found.name.as_str()), (9, "a.test"));
        assert_eq!(found.records[0], ("a.test".into(), minute, Record::Alias("alias.test".into())));
        assert_eq!(found.records[1], ("alias.test".into(), minute, Record::Address([1, 2, 3, 4].into())));
        assert_eq!((read(&query(7, "a.test")), asked(&bytes)), (None, None));
        for len in 0..bytes.len() {
            assert_eq!(read(&bytes[..len]), None, "{len}");
        }
        // A name that refers to itself, and one with a character that none has.
        let mut circle = query(1, "a.test");
        circle.splice(12..13, [0xc0, 12]);
        assert_eq!(asked(&circle), None);
        assert_eq!(asked(&query(1, "a b.test")), None);
    }
}
