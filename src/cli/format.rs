//! How a record is printed: a text with placeholders, or JSON.

use std::io::{self, Write};

use super::failure::Failure;

/// What `--format` takes, for its help.
pub(crate) const FORMAT_HELP: &str = "How a record is printed: %t topic, %p partition, %o offset, \
     %k key, %s value, %h headers, %T timestamp in ms, %K and %S bytes of key and value (-1 for \
     null), %% a percent sign; \\n \\r \\t \\0 \\\\ \\xHH as usual. Without it: the value and a line \
     end";

/// A record with where it comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Printed<'a> {
    /// Its topic.
    pub(crate) topic: &'a str,
    /// Its partition.
    pub(crate) partition: i32,
    /// Its offset.
    pub(crate) offset: i64,
    /// Its timestamp.
    pub(crate) timestamp_ms: i64,
    /// Its key.
    pub(crate) key: Option<&'a [u8]>,
    /// Its value.
    pub(crate) value: Option<&'a [u8]>,
    /// Its headers.
    pub(crate) headers: &'a [(&'a [u8], Option<&'a [u8]>)],
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(Vec<u8>),
    Topic,
    Partition,
    Offset,
    Key,
    KeyBytes,
    Value,
    ValueBytes,
    Headers,
    Timestamp,
}

/// A format that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Format {
    pieces: Vec<Piece>,
}

impl Default for Format {
    /// The value and a line end.
    fn default() -> Format {
        Format {
            pieces: vec![Piece::Value, Piece::Text(b"\n".to_vec())],
        }
    }
}

impl Format {
    /// Understands `text`.
    pub(crate) fn parse(text: &str) -> Result<Format, Failure> {
        let mut format = Format { pieces: Vec::new() };
        let mut rest = text;
        while let Some(at) = rest.find(['%', '\\']) {
            format.push_text(&rest.as_bytes()[..at]);
            let is_placeholder = rest.as_bytes()[at] == b'%';
            let letter = rest[at + 1..].chars().next();
            let wrong = || {
                let letter = letter.map(String::from).unwrap_or_default();
                let sign = if is_placeholder { '%' } else { '\\' };
                Failure::Usage(format!("--format: {sign}{letter} has no meaning"))
            };
            let letter = letter.ok_or_else(wrong)?;
            rest = &rest[at + 1 + letter.len_utf8()..];
            if is_placeholder {
                let piece = placeholder(letter).ok_or_else(wrong)?;
                format.push(piece);
            } else if letter == 'x' {
                let byte = rest.get(..2).and_then(hexadecimal).ok_or_else(wrong)?;
                format.push_text(&[byte]);
                rest = &rest[2..];
            } else {
                format.push_text(&[escape(letter).ok_or_else(wrong)?]);
            }
        }
        format.push_text(rest.as_bytes());
        Ok(format)
    }

    fn push(&mut self, piece: Piece) {
        match piece {
            Piece::Text(text) => self.push_text(&text),
            piece => self.pieces.push(piece),
        }
    }

    fn push_text(&mut self, text: &[u8]) {
        if text.is_empty() {
            return;
        }
        match self.pieces.last_mut() {
            Some(Piece::Text(before)) => before.extend_from_slice(text),
            _ => self.pieces.push(Piece::Text(text.to_vec())),
        }
    }

    /// Prints one record. A null key or value prints nothing.
    pub(crate) fn write(&self, out: &mut impl Write, record: &Printed<'_>) -> io::Result<()> {
        let length = |bytes: Option<&[u8]>| bytes.map_or(-1, |bytes| bytes.len() as i64);
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.write_all(text)?,
                Piece::Topic => out.write_all(record.topic.as_bytes())?,
                Piece::Partition => write!(out, "{}", record.partition)?,
                Piece::Offset => write!(out, "{}", record.offset)?,
                Piece::Key => out.write_all(record.key.unwrap_or_default())?,
                Piece::KeyBytes => write!(out, "{}", length(record.key))?,
                Piece::Value => out.write_all(record.value.unwrap_or_default())?,
                Piece::ValueBytes => write!(out, "{}", length(record.value))?,
                Piece::Headers => write_headers(out, record.headers)?,
                Piece::Timestamp => write!(out, "{}", record.timestamp_ms)?,
            }
        }
        Ok(())
    }
}

fn placeholder(letter: char) -> Option<Piece> {
    Some(match letter {
        't' => Piece::Topic,
        'p' => Piece::Partition,
        'o' => Piece::Offset,
        'k' => Piece::Key,
        'K' => Piece::KeyBytes,
        's' => Piece::Value,
        'S' => Piece::ValueBytes,
        'h' => Piece::Headers,
        'T' => Piece::Timestamp,
        '%' => Piece::Text(b"%".to_vec()),
        _ => return None,
    })
}

fn escape(letter: char) -> Option<u8> {
    Some(match letter {
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        '0' => 0,
        '\\' => b'\\',
        _ => return None,
    })
}

fn hexadecimal(digits: &str) -> Option<u8> {
    let is_number = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_number.then(|| u8::from_str_radix(digits, 16).ok())?
}

/// `name=value,name=value`; a null value is written as `NULL`.
fn write_headers(out: &mut impl Write, headers: &[(&[u8], Option<&[u8]>)]) -> io::Result<()> {
    for (index, (name, value)) in headers.iter().enumerate() {
        if index > 0 {
            out.write_all(b",")?;
        }
        out.write_all(name)?;
        out.write_all(b"=")?;
        out.write_all(value.unwrap_or(b"NULL"))?;
    }
    Ok(())
}

/// One record as one line of JSON. Bytes that are not UTF-8 stand in base64 under another name.
pub(crate) fn write_json(out: &mut impl Write, record: &Printed<'_>) -> io::Result<()> {
    let mut fields = serde_json::Map::new();
    fields.insert("topic".to_owned(), record.topic.into());
    fields.insert("partition".to_owned(), record.partition.into());
    fields.insert("offset".to_owned(), record.offset.into());
    fields.insert("timestamp_ms".to_owned(), record.timestamp_ms.into());
    insert_bytes(&mut fields, "key", record.key);
    insert_bytes(&mut fields, "value", record.value);
    let headers = record.headers.iter().map(|(name, value)| {
        let mut header = serde_json::Map::new();
        insert_bytes(&mut header, "name", Some(name));
        insert_bytes(&mut header, "value", *value);
        serde_json::Value::Object(header)
    });
    fields.insert("headers".to_owned(), headers.collect());
    serde_json::to_writer(&mut *out, &fields)?;
    out.write_all(b"\n")
}

fn insert_bytes(
    fields: &mut serde_json::Map<String, serde_json::Value>,
    name: &str,
    bytes: Option<&[u8]>,
) {
    let text = bytes.map(|bytes| str::from_utf8(bytes).map_err(|_| base64(bytes)));
    match text {
        None => fields.insert(name.to_owned(), serde_json::Value::Null),
        Some(Ok(text)) => fields.insert(name.to_owned(), text.into()),
        Some(Err(encoded)) => fields.insert(format!("{name}_base64"), encoded.into()),
    };
}

/// Standard base64 with padding.
fn base64(bytes: &[u8]) -> String {
    const SYMBOLS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let byte = |index: usize| u32::from(three.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for index in 0..4 {
            let symbol = SYMBOLS[(bits >> (18 - 6 * index) & 63) as usize];
            text.push(if index <= three.len() {
                symbol as char
            } else {
                '='
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: Printed<'_> = Printed {
        topic: "t",
        partition: 3,
        offset: 42,
        timestamp_ms: 1_767_323_045_678,
        key: Some(b"k"),
        value: Some(b"v\xff"),
        headers: &[(b"a", Some(b"1")), (b"b", None)],
    };

    fn printed(format: &str, record: &Printed<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        let format = Format::parse(format).expect("a format");
        format.write(&mut out, record).expect("memory");
        out
    }

    #[test]
    fn placeholders_and_escapes_become_what_they_stand_for() {
        assert_eq!(
            printed("%t[%p]@%o %T %k(%K)=%s(%S) %h\\n", &RECORD),
            b"t[3]@42 1767323045678 k(1)=v\xff(2) a=1,b=NULL\n"
        );
        assert_eq!(
            printed("100%%\\t\\r\\0\\\\\\x41\\xfF", &RECORD),
            b"100%\t\r\0\\A\xff"
        );
        assert_eq!(printed("", &RECORD), b"");
        assert_eq!(printed("\u{e9}%s", &RECORD), b"\xc3\xa9v\xff");
    }

    #[test]
    fn null_is_nothing_with_length_minus_one() {
        let record = Printed {
            key: None,
            value: None,
            headers: &[],
            ..RECORD
        };
        assert_eq!(printed("<%k|%s|%h|%K|%S>", &record), b"<|||-1|-1>");
    }

    #[test]
    fn what_has_no_meaning_is_wrong_usage() {
        for text in [
            "%", "%x", "\\", "\\q", "\\x", "\\x4", "\\xg0", "\\x+1", "%é", "\\é",
        ] {
            let failure = Format::parse(text).expect_err(text);
            assert_eq!(failure.exit_code(), 2, "{text}");
        }
    }

    #[test]
    fn the_default_is_the_value_on_a_line() {
        assert_eq!(Format::parse("%s\\n").expect("a format"), Format::default());
    }

    #[test]
    fn json_is_one_line_and_keeps_bytes_that_are_no_text() {
        let mut out = Vec::new();
        write_json(&mut out, &RECORD).expect("memory");
        assert!(out.ends_with(b"}\n"));
        let json: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
        let expected = serde_json::json!({
            "topic": "t", "partition": 3, "offset": 42, "timestamp_ms": 1_767_323_045_678_i64,
            "key": "k", "value_base64": "dv8=",
            "headers": [{"name": "a", "value": "1"}, {"name": "b", "value": null}],
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn base64_pads() {
        for (bytes, text) in [
            (&b""[..], ""),
            (b"f", "Zg=="),
            (b"fo", "Zm8="),
            (b"foo", "Zm9v"),
            (b"foob", "Zm9vYg=="),
            (b"\xff\xfe\xfd", "//79"),
        ] {
            assert_eq!(base64(bytes), text);
        }
    }
}
