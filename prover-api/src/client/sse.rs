//! Server-sent events (WHATWG HTML, 9.2), as far as progress streams need them.

/// Longest event that is read. Statuses have about a kilobyte.
const MAX_EVENT_BYTES: usize = 256 << 10;

/// The stream is no event stream that a pod writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a server-sent event is longer than {MAX_EVENT_BYTES} bytes")]
pub struct EventTooLong;

/// Splits a byte stream into the data of its events, however the bytes arrive.
#[derive(Debug, Default)]
pub struct EventReader {
    line: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
}

impl EventReader {
    /// Takes the next bytes; gives the data of each event that they complete.
    ///
    /// # Errors
    /// [`EventTooLong`]: the reader is of no use any more.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, EventTooLong> {
        let mut events = Vec::new();
        for &byte in bytes {
            if byte == b'\n' {
                if let Some(event) = self.end_line() {
                    events.push(event);
                }
            } else {
                self.line.push(byte);
                if self.line.len() + self.data.len() > MAX_EVENT_BYTES {
                    return Err(EventTooLong);
                }
            }
        }
        Ok(events)
    }

    fn end_line(&mut self) -> Option<Vec<u8>> {
        let mut line = std::mem::take(&mut self.line);
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        if line.is_empty() {
            return std::mem::take(&mut self.has_data).then(|| std::mem::take(&mut self.data));
        }
        // Comments (keep-alive), event names and ids carry nothing that the data does not.
        if let Some(value) = line.strip_prefix(b"data:") {
            if self.has_data {
                self.data.push(b'\n');
            }
            self.data.extend_from_slice(value.strip_prefix(b" ").unwrap_or(value));
            self.has_data = true;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STREAM: &[u8] =
        b": hello\n\nevent: status\ndata: {\"a\":1}\n\n:keep-alive\n\ndata:x\r\ndata: y\r\n\r\nid: 7\n\ndata: unfinished";

    #[test]
    fn events_are_found() {
        let events = EventReader::default().feed(STREAM).expect("is short");
        assert_eq!(events, [b"{\"a\":1}".to_vec(), b"x\ny".to_vec()]);
    }

    #[test]
    fn an_endless_line_is_refused() {
        let mut reader = EventReader::default();
        let fed = (0..10_000).find_map(|_| reader.feed(&[b'x'; 1_000]).err());
        assert_eq!(fed, Some(EventTooLong));
        let mut reader = EventReader::default();
        let line = [b"data: ".as_slice(), &[b'x'; 1_000], b"\n"].concat();
        assert_eq!((0..10_000).find_map(|_| reader.feed(&line).err()), Some(EventTooLong));
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_the_bytes_arrive(mut cuts in prop::collection::vec(0..STREAM.len(), 0..20)) {
            cuts.extend([0, STREAM.len()]);
            cuts.sort_unstable();
            let mut reader = EventReader::default();
            let mut events = Vec::new();
            for pair in cuts.windows(2) {
                events.extend(reader.feed(&STREAM[pair[0]..pair[1]]).expect("is short"));
            }
            prop_assert_eq!(events, EventReader::default().feed(STREAM).expect("is short"));
        }
    }
}
