//! The 64 bytes that open a ZMTP 3 connection.

use super::ZmtpError;

/// Length of the greeting.
pub(super) const GREETING_BYTES: usize = 64;

/// Signature, version 3.1, mechanism NULL, as-server 0, filler.
pub(super) fn greeting() -> [u8; GREETING_BYTES] {
    let mut bytes = [0; GREETING_BYTES];
    bytes[0] = 0xff;
    // The padding is 1 in libzmq: to a ZMTP 1.0 peer it reads as the length of an identity frame.
    bytes[8] = 1;
    bytes[9] = 0x7f;
    bytes[10] = 3;
    bytes[11] = 1;
    bytes[12..16].copy_from_slice(b"NULL");
    bytes
}

/// Checks what has arrived of the peer's greeting; the minor version once it is whole.
///
/// Refuses at the first wrong byte: a peer that speaks another protocol may never send 64.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<u8>, ZmtpError> {
    let wrong = |what: String| Err(ZmtpError::Greeting(what));
    match bytes.first() {
        Some(&first) if first != 0xff => return wrong(format!("first byte {first:#04x}")),
        _ => {}
    }
    match bytes.get(9) {
        Some(&last) if last & 1 == 0 => return wrong(format!("signature ends in {last:#04x}")),
        _ => {}
    }
    match bytes.get(10) {
        Some(&major) if major < 3 => return wrong(format!("version {major}")),
        _ => {}
    }
    let Some(bytes) = bytes.get(..GREETING_BYTES) else { return Ok(None) };
    let mechanism = &bytes[12..32];
    let name = mechanism.split(|&byte| byte == 0).next().unwrap_or_default();
    if name != b"NULL" {
        return Err(ZmtpError::Mechanism(String::from_utf8_lossy(name).into_owned()));
    }
    // A later major version must speak 3.1 when it meets one (RFC 37, version negotiation).
    Ok(Some(if bytes[10] > 3 { 1 } else { bytes[11] }))
}
