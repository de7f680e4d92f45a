//! Frames: a length, a header, a message.
//!
//! The length itself is read from the socket by whoever reads the frame, since it decides how much
//! memory the frame may take; everything here gets the bytes behind it. When writing, a frame
//! begins with a place for the length that [`finish`] fills in.
//!
//! Headers are messages of the tables too, but their version follows from API and version of the
//! message behind them.

use std::borrow::Cow;

use thiserror::Error;

use super::api_table::ApiKey;
use super::codec::{DecodeError, Reader, Writer};
use super::message::{Message, Request, Response};
use super::messages::header;

/// Bytes of the length before every frame.
pub const LENGTH_BYTES: usize = 4;
/// Bytes at the start of a request that mean the same in every header version: API key, version,
/// correlation id.
pub const FIXED_HEADER_BYTES: usize = 8;

/// What stands before every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestHeader<'a> {
    /// The API, as a number.
    pub api_key: i16,
    /// Version of the request and of its response.
    pub api_version: i16,
    /// Chosen by the client, returned with the response.
    pub correlation_id: i32,
    /// How the client calls itself.
    pub client_id: Option<&'a str>,
}

/// A request whose header was understood.
#[derive(Debug, Clone)]
pub struct RequestFrame<'a> {
    /// The header.
    pub header: RequestHeader<'a>,
    /// [`RequestHeader::api_key`], which is known.
    pub api: ApiKey,
    /// The bytes of the request itself.
    pub body: Reader<'a>,
}

/// Why a frame is not a request that could be decoded. The client is at fault, or newer than us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameError {
    /// Not even the fixed part of the header is there.
    #[error("frame of {0} bytes is shorter than its header")]
    TooShort(usize),
    /// There is no such API.
    #[error("API key {api_key} is unknown (version {api_version})")]
    UnknownApi {
        /// The key of the request.
        api_key: i16,
        /// The version of the request.
        api_version: i16,
        /// For the log: there is no response that the client could expect.
        correlation_id: i32,
    },
    /// The API has no such version. For ApiVersions the answer is a response of version 0 with
    /// UNSUPPORTED_VERSION; other APIs have no response for it.
    #[error("{api} has no version {api_version}")]
    UnsupportedVersion {
        /// The API.
        api: ApiKey,
        /// The version of the request.
        api_version: i16,
        /// Belongs into the response.
        correlation_id: i32,
    },
    /// The header is damaged.
    #[error("header: {0}")]
    Header(#[from] DecodeError),
    /// The message behind the header is damaged.
    #[error("body: {0}")]
    Body(DecodeError),
}

impl FrameError {
    /// A short fixed name, for metric labels.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            FrameError::TooShort(_) => "frame_too_short",
            FrameError::UnknownApi { .. } => "unknown_api",
            FrameError::UnsupportedVersion { .. } => "unsupported_version",
            FrameError::Header(error) | FrameError::Body(error) => error.reason(),
        }
    }
}

/// API key, version and correlation id of a frame, whatever follows them.
pub fn peek_request(frame: &[u8]) -> Result<(i16, i16, i32), FrameError> {
    if frame.len() < FIXED_HEADER_BYTES {
        return Err(FrameError::TooShort(frame.len()));
    }
    let mut reader = Reader::new(frame);
    Ok((reader.int16()?, reader.int16()?, reader.int32()?))
}

/// Client id of a frame whose version may be unknown: it stands at the same place in every header.
#[must_use]
pub fn peek_client_id(frame: &[u8]) -> Option<&str> {
    let mut reader = Reader::new(frame.get(FIXED_HEADER_BYTES..)?);
    match reader.classic_nullable_string(true) {
        Ok(Some(Cow::Borrowed(client_id))) => Some(client_id),
        _ => None,
    }
}

/// Reads the header of a request; `frame` is what follows the length.
pub fn decode_request(frame: &[u8]) -> Result<RequestFrame<'_>, FrameError> {
    let (api_key, api_version, correlation_id) = peek_request(frame)?;
    let Some(api) = ApiKey::from_code(api_key) else {
        return Err(FrameError::UnknownApi {
            api_key,
            api_version,
            correlation_id,
        });
    };
    if !api.versions().contains(&api_version) {
        return Err(FrameError::UnsupportedVersion {
            api,
            api_version,
            correlation_id,
        });
    }
    let mut body = Reader::new(frame);
    let header = header::RequestHeader::decode(&mut body, api.request_header_version(api_version))?;
    let client_id = match header.client_id {
        Some(Cow::Borrowed(client_id)) => Some(client_id),
        _ => None,
    };
    let header = RequestHeader {
        api_key,
        api_version,
        correlation_id,
        client_id,
    };
    Ok(RequestFrame { header, api, body })
}

/// A frame that was begun and not finished.
#[derive(Debug)]
#[must_use = "a frame needs its length"]
pub struct OpenFrame {
    position: usize,
    gaps: usize,
}

fn begin(writer: &mut Writer) -> OpenFrame {
    let open = OpenFrame {
        position: writer.head().len(),
        gaps: writer.gaps().len(),
    };
    writer.int32(0);
    open
}

/// Begins a response: length and header. The message comes next, then [`finish`].
pub fn begin_response(
    writer: &mut Writer,
    api: ApiKey,
    api_version: i16,
    correlation_id: i32,
) -> OpenFrame {
    let open = begin(writer);
    header::ResponseHeader { correlation_id }
        .encode(writer, api.response_header_version(api_version));
    open
}

/// Begins a request: length and header. The message comes next, then [`finish`].
pub fn begin_request(writer: &mut Writer, header: &RequestHeader<'_>, api: ApiKey) -> OpenFrame {
    assert_eq!(
        header.api_key,
        api.code(),
        "the header is that of another API"
    );
    let open = begin(writer);
    header::RequestHeader {
        request_api_key: header.api_key,
        request_api_version: header.api_version,
        correlation_id: header.correlation_id,
        client_id: header.client_id.map(Cow::Borrowed),
    }
    .encode(writer, api.request_header_version(header.api_version));
    open
}

/// Fills in the length of a frame, gaps included.
///
/// # Panics
/// When the frame is longer than 2 GiB: responses are limited long before.
pub fn finish(writer: &mut Writer, open: OpenFrame) {
    let gaps: usize = writer.gaps()[open.gaps..]
        .iter()
        .map(|gap| gap.length)
        .sum();
    let length = writer.head().len() - open.position - LENGTH_BYTES + gaps;
    let length = i32::try_from(length).expect("frames are limited to less than 2 GiB");
    writer.patch_int32(open.position, length);
}

/// Writes a whole response frame.
pub fn encode_response<'a, R: Response<'a>>(
    writer: &mut Writer,
    api_version: i16,
    correlation_id: i32,
    response: &R,
) {
    let open = begin_response(writer, R::API_KEY, api_version, correlation_id);
    response.encode(writer, api_version);
    finish(writer, open);
}

/// Writes a whole request frame.
pub fn encode_request<'a, R: Request<'a>>(
    writer: &mut Writer,
    api_version: i16,
    correlation_id: i32,
    client_id: Option<&str>,
    request: &R,
) {
    let api_key = R::API_KEY.code();
    let header = RequestHeader {
        api_key,
        api_version,
        correlation_id,
        client_id,
    };
    let open = begin_request(writer, &header, R::API_KEY);
    request.encode(writer, api_version);
    finish(writer, open);
}

/// Reads the header of a response to a request of `api` and `api_version`; `frame` is what follows
/// the length. Gives the correlation id and the bytes of the response itself.
pub fn decode_response(
    frame: &[u8],
    api: ApiKey,
    api_version: i16,
) -> Result<(i32, Reader<'_>), FrameError> {
    if frame.len() < 4 {
        return Err(FrameError::TooShort(frame.len()));
    }
    let mut body = Reader::new(frame);
    let version = api.response_header_version(api_version);
    let header = header::ResponseHeader::decode(&mut body, version)?;
    Ok((header.correlation_id, body))
}

/// Reads a whole response to a request of type `Q`: correlation id and message. Bytes behind the
/// message are ignored, as in Kafka's clients.
pub fn decode_response_of<'q, 'r, Q: Request<'q>>(
    frame: &'r [u8],
    api_version: i16,
) -> Result<(i32, Q::Response<'r>), FrameError> {
    let (correlation_id, mut body) = decode_response(frame, Q::API_KEY, api_version)?;
    let response = Q::Response::decode(&mut body, api_version).map_err(FrameError::Body)?;
    Ok((correlation_id, response))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::codec::{Gap, Records};
    use crate::wire::messages::{api_versions, fetch, metadata};

    fn metadata_frame(api_version: i16) -> Vec<u8> {
        let request = metadata::MetadataRequest {
            topics: None,
            ..Default::default()
        };
        let mut writer = Writer::new();
        encode_request(&mut writer, api_version, 7, Some("client"), &request);
        writer.into_parts().0
    }

    fn length_of(frame: &[u8]) -> usize {
        Reader::new(frame).int32().expect("a length") as usize
    }

    #[test]
    fn requests_survive_in_both_header_versions() {
        for api_version in [1, 13] {
            let bytes = metadata_frame(api_version);
            assert_eq!(length_of(&bytes), bytes.len() - LENGTH_BYTES);
            let mut frame = decode_request(&bytes[LENGTH_BYTES..]).expect("a request");
            assert_eq!(frame.api, ApiKey::Metadata);
            assert_eq!(
                frame.header,
                RequestHeader {
                    api_key: 3,
                    api_version,
                    correlation_id: 7,
                    client_id: Some("client")
                }
            );
            let request = metadata::MetadataRequest::decode(&mut frame.body, api_version);
            assert_eq!(request.expect("a body").topics, None);
            assert_eq!(frame.body.expect_end(), Ok(()));
        }
    }

    #[test]
    fn frames_that_are_cut_anywhere_are_errors() {
        for api_version in [1, 13] {
            let bytes = metadata_frame(api_version);
            let frame = &bytes[LENGTH_BYTES..];
            for length in 0..frame.len() {
                let decoded = decode_request(&frame[..length])
                    .map_err(drop)
                    .and_then(|mut cut| {
                        metadata::MetadataRequest::decode(&mut cut.body, api_version).map_err(drop)
                    });
                assert!(decoded.is_err(), "{length} bytes of version {api_version}");
            }
            assert_eq!(
                decode_request(&frame[..7]).unwrap_err(),
                FrameError::TooShort(7)
            );
        }
    }

    #[test]
    fn unknown_apis_and_versions_still_tell_what_they_are() {
        let mut writer = Writer::new();
        for value in [18_i16, 99] {
            writer.int16(value);
        }
        writer.int32(5);
        writer.classic_nullable_string(Some("future"), true);
        writer.raw(&[0xff; 9]);
        let error = decode_request(writer.head()).unwrap_err();
        assert_eq!(
            error,
            FrameError::UnsupportedVersion {
                api: ApiKey::ApiVersions,
                api_version: 99,
                correlation_id: 5
            }
        );
        assert_eq!(peek_client_id(writer.head()), Some("future"));

        let error = decode_request(&[0, 4, 0, 1, 0, 0, 0, 2]).unwrap_err();
        assert_eq!(
            error,
            FrameError::UnknownApi {
                api_key: 4,
                api_version: 1,
                correlation_id: 2
            }
        );
        assert_eq!(error.reason(), "unknown_api");
        assert_eq!(peek_client_id(&[0, 4, 0, 1, 0, 0, 0, 2]), None);
    }

    #[test]
    fn the_length_of_a_response_counts_what_goes_into_the_gaps() {
        let partition = |size| fetch::PartitionData {
            records: Records::Detached(size),
            ..Default::default()
        };
        let topic = fetch::FetchableTopicResponse {
            partitions: vec![partition(1000), partition(0), partition(24)],
            ..Default::default()
        };
        let response = fetch::FetchResponse {
            responses: vec![topic],
            ..Default::default()
        };
        for api_version in [11, 12, 18] {
            let mut writer = Writer::new();
            writer.int32(0x0bad_f00d); // Another frame may stand before.
            encode_response(&mut writer, api_version, 3, &response);
            let size_bytes = writer.size_bytes();
            let (mut head, gaps) = writer.into_parts();
            assert_eq!(
                gaps.iter().map(|gap| gap.length).collect::<Vec<_>>(),
                [1000, 24]
            );
            assert_eq!(length_of(&head[4..]), size_bytes - 8);
            for Gap { position, length } in gaps.into_iter().rev() {
                head.splice(position..position, vec![b'r'; length]);
            }
            let (correlation_id, mut body) =
                decode_response(&head[8..], ApiKey::Fetch, api_version).expect("a header");
            assert_eq!(correlation_id, 3);
            let decoded = fetch::FetchResponse::decode(&mut body, api_version).expect("a body");
            assert_eq!(body.expect_end(), Ok(()));
            let sizes: Vec<usize> = decoded.responses[0]
                .partitions
                .iter()
                .map(|partition| partition.records.size_bytes())
                .collect();
            assert_eq!(sizes, [1000, 0, 24]);
        }
    }

    #[test]
    fn a_request_knows_its_response() {
        let response = metadata::MetadataResponse {
            cluster_id: Some("cluster".into()),
            controller_id: 2,
            ..Default::default()
        };
        for api_version in [2, 9] {
            let mut writer = Writer::new();
            encode_response(&mut writer, api_version, 4, &response);
            let frame = &writer.head()[LENGTH_BYTES..];
            let decoded = decode_response_of::<metadata::MetadataRequest<'_>>(frame, api_version);
            assert_eq!(decoded, Ok((4, response.clone())));
            let cut = &frame[..frame.len() - 1];
            let decoded = decode_response_of::<metadata::MetadataRequest<'_>>(cut, api_version);
            assert!(matches!(decoded, Err(FrameError::Body(_))));
        }
    }

    #[test]
    fn the_header_before_api_versions_never_has_tags() {
        let response = api_versions::ApiVersionsResponse::default();
        let mut writer = Writer::new();
        encode_response(&mut writer, 4, 9, &response);
        let frame = &writer.head()[LENGTH_BYTES..];
        assert_eq!(&frame[..6], [0, 0, 0, 9, 0, 0]);
        let (correlation_id, _) = decode_response(frame, ApiKey::ApiVersions, 4).expect("a header");
        assert_eq!(correlation_id, 9);
        assert_eq!(
            decode_response(&[0, 0], ApiKey::ApiVersions, 4).unwrap_err(),
            FrameError::TooShort(2)
        );
    }
}
