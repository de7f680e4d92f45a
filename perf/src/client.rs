//! A blocking conversation with one broker: everything that happens before and after the load.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use percolog::wire::api_table::ApiKey;
use percolog::wire::codec::Writer;
use percolog::wire::error_code::ErrorCode;
use percolog::wire::frame;
use percolog::wire::message::Request;
use percolog::wire::messages::api_versions::{ApiVersionsRequest, ApiVersionsResponse};

/// What went wrong, in words for the user.
pub(crate) type Failure = String;

/// How the tool calls itself on the wire.
pub(crate) const CLIENT_ID: &str = "percolog-perf";
/// Largest answer accepted here: metadata of very many partitions.
const ANSWER_BYTES_MAX: u64 = 256 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Creation of many partitions takes a broker some time.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

/// The versions that both sides can.
pub(crate) type Versions = BTreeMap<ApiKey, i16>;

/// The highest version of `api` that both sides can.
pub(crate) fn version_of(versions: &Versions, api: ApiKey) -> Result<i16, Failure> {
    let version = versions.get(&api).copied();
    version
        .ok_or_else(|| format!("the broker serves no version of {api} that percolog-perf can use"))
}

/// Connects to the first address of `address` that answers.
pub(crate) fn connect(address: &str) -> Result<TcpStream, Failure> {
    let failed = |reason: &dyn std::fmt::Display| format!("cannot reach {address}: {reason}");
    let mut reason = "the name has no address".to_owned();
    for candidate in address.to_socket_addrs().map_err(|error| failed(&error))? {
        match TcpStream::connect_timeout(&candidate, CONNECT_TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => reason = error.to_string(),
        }
    }
    Err(failed(&reason))
}

/// One broker.
#[derive(Debug)]
pub(crate) struct Client {
    address: String,
    stream: TcpStream,
    versions: Versions,
    next_correlation_id: i32,
}

impl Client {
    /// Connects to the first of `bootstrap` (HOST:PORT, separated by commas) that answers, and agrees
    /// on versions.
    pub(crate) fn open(bootstrap: &str) -> Result<Client, Failure> {
        let mut reasons = Vec::new();
        for address in bootstrap.split(',').map(str::trim) {
            match Client::open_one(address) {
                Ok(client) => return Ok(client),
                Err(reason) => reasons.push(reason),
            }
        }
        Err(reasons.join("; "))
    }

    fn open_one(address: &str) -> Result<Client, Failure> {
        let stream = connect(address)?;
        let prepared = stream
            .set_nodelay(true)
            .and_then(|()| stream.set_read_timeout(Some(ANSWER_TIMEOUT)))
            .and_then(|()| stream.set_write_timeout(Some(ANSWER_TIMEOUT)));
        prepared.map_err(|error| format!("{address}: {error}"))?;
        let mut client = Client {
            address: address.to_owned(),
            stream,
            versions: Versions::new(),
            next_correlation_id: 0,
        };
        client.agree_on_versions()?;
        Ok(client)
    }

    /// Asks with the highest version; a broker that does not know it answers in version 0.
    pub(crate) fn agree_on_versions(&mut self) -> Result<(), Failure> {
        let request = ApiVersionsRequest {
            client_software_name: CLIENT_ID.into(),
            client_software_version: env!("CARGO_PKG_VERSION").into(),
        };
        for version in [*ApiKey::ApiVersions.stable_versions().end(), 0] {
            let answer = self.exchange(&request, version)?;
            // Behind the correlation id, in every version.
            let refused = ErrorCode::UnsupportedVersion.code().to_be_bytes();
            if answer.get(4..6) == Some(&refused[..]) {
                continue;
            }
            let decoded = frame::decode_response_of::<ApiVersionsRequest<'_>>(&answer, version);
            let (_, response) = decoded.map_err(|error| format!("{}: {error}", self.address))?;
            check("ApiVersions", response.error_code)?;
            self.versions = common_versions(&response);
            return Ok(());
        }
        Err(format!(
            "{} refuses every version of ApiVersions",
            self.address
        ))
    }

    /// The versions that both sides can.
    pub(crate) fn versions(&self) -> &Versions {
        &self.versions
    }

    /// Sends a request in the highest common version; gives `read` the answer.
    pub(crate) fn ask<'q, Q: Request<'q>, T>(
        &mut self,
        request: &Q,
        read: impl FnOnce(Q::Response<'_>) -> T,
    ) -> Result<T, Failure> {
        let version = version_of(&self.versions, Q::API_KEY)?;
        let answer = self.exchange(request, version)?;
        match frame::decode_response_of::<Q>(&answer, version) {
            Ok((_, response)) => Ok(read(response)),
            Err(error) => Err(format!("{}: {}: {error}", self.address, Q::API_KEY)),
        }
    }

    fn exchange<'q, Q: Request<'q>>(
        &mut self,
        request: &Q,
        version: i16,
    ) -> Result<Vec<u8>, Failure> {
        let correlation_id = self.next_correlation_id;
        self.next_correlation_id += 1;
        let mut writer = Writer::new();
        frame::encode_request(
            &mut writer,
            version,
            correlation_id,
            Some(CLIENT_ID),
            request,
        );
        let failed = |error: std::io::Error| format!("{}: {}: {error}", self.address, Q::API_KEY);
        self.stream.write_all(writer.head()).map_err(failed)?;
        let mut length = [0; frame::LENGTH_BYTES];
        self.stream.read_exact(&mut length).map_err(failed)?;
        let size_bytes = u64::from(u32::from_be_bytes(length)).min(ANSWER_BYTES_MAX);
        let mut answer = Vec::new();
        let mut input = (&mut self.stream).take(size_bytes);
        input.read_to_end(&mut answer).map_err(failed)?;
        match answer.get(..4) == Some(&correlation_id.to_be_bytes()[..]) {
            true => Ok(answer),
            false => Err(format!("{}: not an answer to {}", self.address, Q::API_KEY)),
        }
    }
}

fn common_versions(response: &ApiVersionsResponse<'_>) -> Versions {
    let mut versions = Versions::new();
    for served in &response.api_keys {
        let Some(api) = ApiKey::from_code(served.api_key) else {
            continue;
        };
        let ours = api.stable_versions();
        let max = served.max_version.min(*ours.end());
        if max >= served.min_version.max(*ours.start()) {
            versions.insert(api, max);
        }
    }
    versions
}

/// Kafka's name of an error code.
pub(crate) fn error_name(code: i16) -> String {
    ErrorCode::from_code(code)
        .map_or_else(|| format!("ERROR_{code}"), |error| error.name().to_owned())
}

/// Fails unless `code` is that of success.
pub(crate) fn check(what: &str, code: i16) -> Result<(), Failure> {
    match code {
        0 => Ok(()),
        code => Err(format!("{what}: {}", error_name(code))),
    }
}
