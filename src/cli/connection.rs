//! One blocking connection to one broker: versions agreed on, requests sent, responses in order.

use std::collections::BTreeMap;
use std::io::{BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use crate::wire::api_table::ApiKey;
use crate::wire::codec::Writer;
use crate::wire::error_code::ErrorCode;
use crate::wire::frame;
use crate::wire::message::Request;
use crate::wire::messages::api_versions::{ApiVersionsRequest, ApiVersionsResponse};

use super::failure::Failure;

/// How the client calls itself.
const CLIENT_ID: &str = "percolog";
/// Largest response accepted: ten times what the largest fetch asks for.
const RESPONSE_BYTES_MAX: usize = 512 << 20;
/// First memory for a response; more comes as bytes arrive.
const RESPONSE_BYTES_INITIAL: usize = 64 << 10;
/// What a socket waits longer than the broker was asked to take.
const GRACE: Duration = Duration::from_secs(5);

/// A request whose response is still to come. Responses come in the order of the requests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected {
    correlation_id: i32,
    version: i16,
}

/// A response as it came.
#[derive(Debug)]
pub(crate) struct Reply {
    frame: Vec<u8>,
    version: i16,
    address: String,
}

impl Reply {
    /// The response, which borrows from the reply.
    pub(crate) fn decode<'q, Q: Request<'q>>(&self) -> Result<Q::Response<'_>, Failure> {
        frame::decode_response_of::<Q>(&self.frame, self.version)
            .map(|(_, response)| response)
            .map_err(|error| Failure::Protocol {
                address: self.address.clone(),
                reason: format!("{} version {}: {error}", Q::API_KEY, self.version),
            })
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    address: String,
    output: TcpStream,
    input: BufReader<TcpStream>,
    /// Versions that both sides can, by API key.
    versions: BTreeMap<i16, (i16, i16)>,
    next_correlation_id: i32,
}

impl Connection {
    /// Connects to `address` (HOST:PORT) and agrees on versions.
    pub(crate) fn open(address: &str, timeout: Duration) -> Result<Connection, Failure> {
        let unreachable = |reason: String| Failure::Unreachable {
            address: address.to_owned(),
            reason,
        };
        let candidates = address
            .to_socket_addrs()
            .map_err(|error| unreachable(error.to_string()))?;
        let mut reason = "the name has no address".to_owned();
        for candidate in candidates {
            match TcpStream::connect_timeout(&candidate, timeout) {
                Ok(stream) => {
                    let mut connection = Connection::over(stream, address, timeout)?;
                    connection.agree_on_versions()?;
                    return Ok(connection);
                }
                Err(error) => reason = error.to_string(),
            }
        }
        Err(unreachable(reason))
    }

    fn over(stream: TcpStream, address: &str, timeout: Duration) -> Result<Connection, Failure> {
        let prepare = || {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(timeout + GRACE))?;
            stream.set_write_timeout(Some(timeout + GRACE))?;
            stream.try_clone()
        };
        let input = prepare().map_err(|error| Failure::Unreachable {
            address: address.to_owned(),
            reason: error.to_string(),
        })?;
        Ok(Connection {
            address: address.to_owned(),
            output: stream,
            input: BufReader::with_capacity(RESPONSE_BYTES_INITIAL, input),
            versions: BTreeMap::new(),
            next_correlation_id: 0,
        })
    }

    /// Asks with our highest version. A broker that does not know it answers in version 0, with
    /// the range that it does know if it is not too old for that.
    fn agree_on_versions(&mut self) -> Result<(), Failure> {
        let request = ApiVersionsRequest {
            client_software_name: CLIENT_ID.into(),
            client_software_version: env!("CARGO_PKG_VERSION").into(),
        };
        let mut version = *ApiKey::ApiVersions.stable_versions().end();
        loop {
            let expected = self.send_version(&request, version)?;
            let mut reply = self.receive(expected)?;
            // Correlation id, then the error code: at the same place in every version.
            let refused = reply.frame.get(4..6)
                == Some(&ErrorCode::UnsupportedVersion.code().to_be_bytes()[..]);
            if refused {
                reply.version = 0;
            }
            let response = reply.decode::<ApiVersionsRequest<'_>>()?;
            if refused && version > 0 {
                version = lower_version(&response, version);
                continue;
            }
            Failure::check(
                format!("broker {}", self.address),
                response.error_code,
                None,
            )?;
            self.versions = common_versions(&response);
            return Ok(());
        }
    }

    fn failed(&self, reason: impl Into<String>) -> Failure {
        Failure::Unreachable {
            address: self.address.clone(),
            reason: reason.into(),
        }
    }

    fn broken(&self, reason: impl Into<String>) -> Failure {
        Failure::Protocol {
            address: self.address.clone(),
            reason: reason.into(),
        }
    }

    fn io(&self, error: &std::io::Error) -> Failure {
        use std::io::ErrorKind;
        self.failed(match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => "it did not answer in time".to_owned(),
            ErrorKind::UnexpectedEof => "it closed the connection".to_owned(),
            _ => error.to_string(),
        })
    }

    /// The highest version of `api` that both sides can, if there is one.
    pub(crate) fn version(&self, api: ApiKey) -> Option<i16> {
        self.versions.get(&api.code()).map(|(_, max)| *max)
    }

    /// Sends a request in the highest version both sides can, but none above `version_max`.
    pub(crate) fn send<'q, Q: Request<'q>>(
        &mut self,
        request: &Q,
        version_max: i16,
    ) -> Result<Expected, Failure> {
        let range = self.versions.get(&Q::API_KEY.code()).copied();
        match range {
            Some((min, max)) if min <= version_max => {
                self.send_version(request, max.min(version_max))
            }
            _ => Err(self.broken(format!(
                "it serves no version of {} that percolog can use",
                Q::API_KEY
            ))),
        }
    }

    fn send_version<'q, Q: Request<'q>>(
        &mut self,
        request: &Q,
        version: i16,
    ) -> Result<Expected, Failure> {
        let correlation_id = self.next_correlation_id;
        self.next_correlation_id = correlation_id.wrapping_add(1);
        let mut writer = Writer::new();
        frame::encode_request(
            &mut writer,
            version,
            correlation_id,
            Some(CLIENT_ID),
            request,
        );
        self.output
            .write_all(writer.head())
            .map_err(|error| self.io(&error))?;
        Ok(Expected {
            correlation_id,
            version,
        })
    }

    /// Waits for the response to the oldest request that has none yet.
    pub(crate) fn receive(&mut self, expected: Expected) -> Result<Reply, Failure> {
        let mut length = [0; frame::LENGTH_BYTES];
        self.input
            .read_exact(&mut length)
            .map_err(|error| self.io(&error))?;
        let length = i32::from_be_bytes(length);
        let size_bytes = usize::try_from(length)
            .ok()
            .filter(|size_bytes| (4..=RESPONSE_BYTES_MAX).contains(size_bytes))
            .ok_or_else(|| self.broken(format!("a response of {length} bytes")))?;
        let mut frame = Vec::with_capacity(size_bytes.min(RESPONSE_BYTES_INITIAL));
        let input = self.input.by_ref().take(size_bytes as u64);
        let received = { input }.read_to_end(&mut frame);
        received.map_err(|error| self.io(&error))?;
        if frame.len() < size_bytes {
            return Err(self.failed("it closed the connection"));
        }
        if frame[..4] != expected.correlation_id.to_be_bytes() {
            return Err(self.broken("a response to another request"));
        }
        Ok(Reply {
            frame,
            version: expected.version,
            address: self.address.clone(),
        })
    }

    /// Whether there is something to receive, or becomes so within `wait`.
    pub(crate) fn has_answer_within(&mut self, wait: Duration) -> Result<bool, Failure> {
        use std::io::{BufRead, ErrorKind};
        let usual = self.output.read_timeout();
        let set = |timeout| self.output.set_read_timeout(timeout);
        let usual = usual
            .and_then(|usual| set(Some(wait)).map(|()| usual))
            .map_err(|error| self.io(&error))?;
        let found = self.input.fill_buf().map(|_| ());
        (self.output.set_read_timeout(usual)).map_err(|error| self.io(&error))?;
        match found {
            // The end of the stream is for whoever receives.
            Ok(()) => Ok(true),
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => Ok(false),
                _ => Err(self.io(&error)),
            },
        }
    }

    /// Sends a request and waits for its response.
    pub(crate) fn ask<'q, Q: Request<'q>>(&mut self, request: &Q) -> Result<Reply, Failure> {
        let expected = self.send(request, *Q::VERSIONS.end())?;
        self.receive(expected)
    }
}

/// What to ask with after `refused`: the broker's highest if it said so, else 0.
fn lower_version(response: &ApiVersionsResponse<'_>, refused: i16) -> i16 {
    let key = ApiKey::ApiVersions.code();
    let range = response.api_keys.iter().find(|api| api.api_key == key);
    range
        .map(|api| api.max_version)
        .filter(|max| (0..refused).contains(max))
        .unwrap_or(0)
}

fn common_versions(response: &ApiVersionsResponse<'_>) -> BTreeMap<i16, (i16, i16)> {
    let mut versions = BTreeMap::new();
    for api in &response.api_keys {
        let Some(key) = ApiKey::from_code(api.api_key) else {
            continue;
        };
        let ours = key.stable_versions();
        let min = api.min_version.max(*ours.start());
        let max = api.max_version.min(*ours.end());
        if min <= max {
            versions.insert(api.api_key, (min, max));
        }
    }
    versions
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::messages::api_versions::ApiVersion;
    use std::net::TcpListener;

    fn served(key: ApiKey, min_version: i16, max_version: i16) -> ApiVersion {
        ApiVersion {
            api_key: key.code(),
            min_version,
            max_version,
        }
    }

    fn response(error_code: i16, api_keys: Vec<ApiVersion>) -> ApiVersionsResponse<'static> {
        ApiVersionsResponse {
            error_code,
            api_keys,
            ..Default::default()
        }
    }

    /// A broker that answers each ApiVersions request with the next of `answers`, and says which
    /// versions it was asked with.
    fn broker(
        answers: Vec<(i16, ApiVersionsResponse<'static>)>,
    ) -> (String, std::thread::JoinHandle<Vec<i16>>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut asked = Vec::new();
            for (version, answer) in answers {
                let mut length = [0; 4];
                stream.read_exact(&mut length).expect("a length");
                let mut request = vec![0; i32::from_be_bytes(length) as usize];
                stream.read_exact(&mut request).expect("a request");
                let (_, asked_version, correlation_id) =
                    frame::peek_request(&request).expect("a header");
                asked.push(asked_version);
                let mut writer = Writer::new();
                frame::encode_response(&mut writer, version, correlation_id, &answer);
                stream.write_all(writer.head()).expect("a reader");
            }
            asked
        });
        (address, thread)
    }

    const TIMEOUT: Duration = Duration::from_secs(10);

    #[test]
    fn a_newer_broker_is_used_up_to_what_we_know() {
        let apis = vec![
            served(ApiKey::Metadata, 0, 99),
            served(ApiKey::Produce, 3, 7),
            served(ApiKey::Fetch, 99, 100),
            ApiVersion {
                api_key: 999,
                ..Default::default()
            },
        ];
        let (address, broker) = broker(vec![(4, response(0, apis))]);
        let connection = Connection::open(&address, TIMEOUT).expect("a connection");
        assert_eq!(broker.join().expect("no panic"), [4]);
        let metadata_max = *ApiKey::Metadata.stable_versions().end();
        assert_eq!(connection.version(ApiKey::Metadata), Some(metadata_max));
        assert_eq!(connection.version(ApiKey::Produce), Some(7));
        assert_eq!(connection.version(ApiKey::Fetch), None);
        assert_eq!(connection.version(ApiKey::CreateTopics), None);
    }

    #[test]
    fn an_older_broker_that_names_its_range_is_asked_within_it() {
        let refusal = response(35, vec![served(ApiKey::ApiVersions, 0, 2)]);
        let answer = response(0, vec![served(ApiKey::Metadata, 0, 5)]);
        let (address, broker) = broker(vec![(0, refusal), (2, answer)]);
        let connection = Connection::open(&address, TIMEOUT).expect("a connection");
        assert_eq!(broker.join().expect("no panic"), [4, 2]);
        assert_eq!(connection.version(ApiKey::Metadata), Some(5));
    }

    #[test]
    fn a_very_old_broker_is_asked_with_version_0() {
        let answer = response(0, vec![served(ApiKey::Metadata, 0, 1)]);
        let (address, broker) = broker(vec![(0, response(35, Vec::new())), (0, answer)]);
        let connection = Connection::open(&address, TIMEOUT).expect("a connection");
        assert_eq!(broker.join().expect("no panic"), [4, 0]);
        assert_eq!(connection.version(ApiKey::Metadata), Some(1));
    }

    #[test]
    fn a_broker_that_refuses_even_version_0_is_not_asked_for_ever() {
        let refusal = || (0, response(35, Vec::new()));
        let (address, broker) = broker(vec![refusal(), refusal()]);
        let failure = Connection::open(&address, TIMEOUT).expect_err("a refusal");
        assert_eq!(failure.error_code(), Some(ErrorCode::UnsupportedVersion));
        assert_eq!(broker.join().expect("no panic"), [4, 0]);
    }

    #[test]
    fn nobody_there_and_a_hang_up_are_unreachable() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        let hang_up = std::thread::spawn(move || drop(listener.accept()));
        let failure = Connection::open(&address, TIMEOUT).expect_err("no answer");
        assert!(matches!(failure, Failure::Unreachable { .. }), "{failure}");
        hang_up.join().expect("no panic");
        let failure = Connection::open(&address, TIMEOUT).expect_err("nobody");
        assert!(matches!(failure, Failure::Unreachable { .. }), "{failure}");
    }

    #[test]
    fn an_api_that_the_broker_lacks_is_named() {
        let (address, broker) = broker(vec![(4, response(0, Vec::new()))]);
        let mut connection = Connection::open(&address, TIMEOUT).expect("a connection");
        let failure = connection
            .ask(&crate::wire::messages::metadata::MetadataRequest::default())
            .expect_err("no such API");
        assert!(failure.to_string().contains("Metadata"), "{failure}");
        broker.join().expect("no panic");
    }
}
