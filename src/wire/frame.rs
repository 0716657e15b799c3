//! Requests, responses and inits: from the bytes of one whole message, and back to bytes.

use super::method::{Call, ErrorCode, Method, Role};
use super::params::Encode;
use super::unpack::Reader;
use super::{Error, NodeAddress, pack};

const REQUEST: u64 = 0;
const RESPONSE: u64 = 1;
const INIT: u64 = 2;

/// One message from a peer, borrowing its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message<'a> {
    /// A call.
    Request(Request<'a>),
    /// The answer to a call of ours.
    Response(Response<'a>),
    /// The opening of a cluster connection.
    Init(Init),
}

/// A call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// The caller's number for it, repeated in the response.
    pub msgid: u32,
    /// Version and id of the method; see [`Method`].
    pub method: u32,
    /// The parameter object, whatever its type, as bytes.
    pub params: &'a [u8],
}

/// The answer to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Response<'a> {
    /// The number of the call.
    pub msgid: u32,
    /// The result as the bytes of one object, or why there is none.
    pub result: Result<&'a [u8], ErrorCode>,
}

/// The opening of a cluster connection: who dials, or who has accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Init {
    /// Where the sender listens.
    pub address: NodeAddress,
    /// The kind of node that the sender is.
    pub role: Role,
}

impl<'a> Message<'a> {
    /// Reads one whole message, as delimited by [`super::Scanner`].
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        let mut reader = Reader::new(bytes);
        let len = reader.array()?;
        match (reader.u64()?, len) {
            (REQUEST, 4..) => {
                let (msgid, method) = (reader.u32()?, reader.u32()?);
                // Exactly four elements: the parameters are what is left.
                let params = if len == 4 { reader.rest() } else { reader.skip()? };
                Ok(Self::Request(Request { msgid, method, params }))
            }
            (RESPONSE, 4..) => {
                let msgid = reader.u32()?;
                let result = if reader.nil() { Ok(reader.skip()?) } else { Err(error_code(&mut reader)?) };
                Ok(Self::Response(Response { msgid, result }))
            }
            (INIT, 3..) => {
                let address = NodeAddress::parse_some(reader.raw()?)?;
                let role = u8::try_from(reader.u64()?).ok().and_then(Role::from_number);
                Ok(Self::Init(Init { address, role: role.ok_or(Error::Malformed)? }))
            }
            _ => Err(Error::Malformed),
        }
    }
}

/// An error object: one of our numbers, or anything else for [`ErrorCode::Unknown`].
fn error_code(reader: &mut Reader<'_>) -> Result<ErrorCode, Error> {
    let object = reader.skip()?;
    let number = Reader::new(object).u32().ok();
    Ok(number.and_then(ErrorCode::from_number).unwrap_or(ErrorCode::Unknown))
}

/// Appends the head of a request; the caller appends the parameter array.
#[inline]
pub fn request_head(out: &mut Vec<u8>, msgid: u32, method: Method) {
    pack::array(out, 4);
    pack::uint(out, REQUEST);
    pack::uint(out, msgid.into());
    pack::uint(out, method.number().into());
}

/// Appends a request.
#[inline]
pub fn request<C: Call>(out: &mut Vec<u8>, msgid: u32, call: &C) {
    request_head(out, msgid, C::METHOD);
    call.encode(out);
}

/// Appends a successful response.
#[inline]
pub fn response(out: &mut Vec<u8>, msgid: u32, result: &impl Encode) {
    response_head(out, msgid);
    result.encode(out);
}

/// Appends the head of a successful response; the caller appends the result.
#[inline]
pub fn response_head(out: &mut Vec<u8>, msgid: u32) {
    pack::array(out, 4);
    pack::uint(out, RESPONSE);
    pack::uint(out, msgid.into());
    pack::nil(out);
}

/// Appends a response that reports an error.
#[inline]
pub fn error_response(out: &mut Vec<u8>, msgid: u32, error: ErrorCode) {
    pack::array(out, 4);
    pack::uint(out, RESPONSE);
    pack::uint(out, msgid.into());
    pack::uint(out, error.number().into());
    pack::nil(out);
}

impl Init {
    /// Appends this message.
    pub fn write(&self, out: &mut Vec<u8>) {
        pack::array(out, 3);
        pack::uint(out, INIT);
        pack::raw(out, &self.address.bytes());
        pack::uint(out, self.role.number().into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let mut out = Vec::new();
        request_head(&mut out, 300, Method::Get);
        pack::array(&mut out, 0);
        let request = Request { msgid: 300, method: 34, params: &[0x90] };
        assert_eq!(Message::parse(&out), Ok(Message::Request(request)));

        let mut out = Vec::new();
        response_head(&mut out, 1);
        pack::bool(&mut out, true);
        assert_eq!(Message::parse(&out), Ok(Message::Response(Response { msgid: 1, result: Ok(&[0xc3]) })));

        let mut out = Vec::new();
        error_response(&mut out, 1, ErrorCode::Server);
        let response = Response { msgid: 1, result: Err(ErrorCode::Server) };
        assert_eq!(Message::parse(&out), Ok(Message::Response(response)));

        let init = Init { address: NodeAddress::new("127.0.0.1:19800".parse().unwrap()), role: Role::Server };
        let mut out = Vec::new();
        init.write(&mut out);
        assert_eq!(out, b"\x93\x02\xa6\x4d\x58\x7f\x00\x00\x01\x01");
        assert_eq!(Message::parse(&out), Ok(Message::Init(init)));
    }

    #[test]
    fn an_error_that_is_no_number_of_ours_is_unknown() {
        let response = Response { msgid: 1, result: Err(ErrorCode::Unknown) };
        for error in [&b"\xa3bad"[..], b"\x63", b"\xc3"] {
            let bytes = [b"\x94\x01\x01", error, b"\xc0"].concat();
            assert_eq!(Message::parse(&bytes), Ok(Message::Response(response)), "{error:?}");
        }
    }

    #[test]
    fn other_shapes_are_malformed() {
        for bytes in [&b"\x05"[..], b"\x90", b"\x94\x03\x01\x01\x90", b"\x93\x00\x01\x01", b"\x92\x02\xa0"] {
            assert_eq!(Message::parse(bytes), Err(Error::Malformed), "{bytes:?}");
        }
    }
}
