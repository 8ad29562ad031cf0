//! Sentry and Gofer: what either takes from the other.

use gofer_proto::{Request, Response};

/// `data` as a message: raw, or when that is none with a header in front that fits it.
fn messages(data: &[u8]) -> [Vec<u8>; 2] {
    let Some((kind, rest)) = data.split_first() else { return [Vec::new(), Vec::new()] };
    let mut framed = vec![0; 4];
    framed.extend([kind & 0x1f, 0, 0, 0]);
    framed.extend(7u64.to_ne_bytes());
    framed.extend(rest);
    let size = u32::try_from(framed.len()).unwrap_or(u32::MAX).to_ne_bytes();
    framed.iter_mut().zip(size).for_each(|(place, byte)| *place = byte);
    [data.to_vec(), framed]
}

/// A request as the Gofer gets it. What decodes is the same when it is encoded again.
pub fn request(data: &[u8]) {
    messages(data).iter().for_each(|message| one_request(message));
}

/// A response as the Sentry gets it.
pub fn response(data: &[u8]) {
    messages(data).iter().for_each(|message| one_response(message));
}

fn one_request(data: &[u8]) {
    let Ok((id, request)) = Request::decode(data) else { return };
    let mut bytes = Vec::new();
    if request.encode(id, &mut bytes).is_ok() {
        assert_eq!(Request::decode(&bytes), Ok((id, request)));
    }
}

fn one_response(data: &[u8]) {
    let Ok((id, response)) = Response::decode(data) else { return };
    let mut bytes = Vec::new();
    if response.encode(id, &mut bytes).is_ok() {
        assert_eq!(Response::decode(&bytes), Ok((id, response)));
    }
}

/// Messages of several kinds.
pub fn seeds() -> Vec<Vec<u8>> {
    let body = |kind: u8, words: &[u64], text: &[u8]| {
        let words = words.iter().flat_map(|word| word.to_ne_bytes());
        std::iter::once(kind).chain(words).chain(text.iter().copied()).collect()
    };
    (1..24).flat_map(|kind| [body(kind, &[1], b"\x04\0name"), body(kind, &[1, 2, 0, 0], b"")]).collect()
}

#[cfg(test)]
mod tests {
    use gofer_proto::Request;

    #[test]
    fn a_framed_message_gets_past_the_header() {
        // Kind 3 is Stat, of a node.
        let mut data = vec![3];
        data.extend(5u64.to_ne_bytes());
        let [_, framed] = super::messages(&data);
        assert!(matches!(Request::decode(&framed), Ok((7, Request::Stat { .. }))));
    }
}
