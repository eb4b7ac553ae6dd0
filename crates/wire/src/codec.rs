//! MessagePack with field names, as a codec of gRPC.

use bytes::{Buf, BufMut, Bytes};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::marker::PhantomData;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// Bytes that are no message of the kind that was expected.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    #[error("a message cannot be written as MessagePack: {0}")]
    Encode(#[from] rmp_serde::encode::Error),
    #[error("a message is not as this version expects it: {0}")]
    Decode(#[from] rmp_serde::decode::Error),
    #[error("{0} bytes follow after the end of a message")]
    Trailing(usize),
}

/// Writes a message as it goes over the wire.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, CodecError> {
    Ok(rmp_serde::to_vec_named(message)?)
}

/// Reads a message. Fields it does not know are skipped, missing ones take their defaults.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let mut rest = bytes;
    let message = T::deserialize(&mut rmp_serde::Deserializer::new(&mut rest))?;
    if rest.is_empty() { Ok(message) } else { Err(CodecError::Trailing(rest.len())) }
}

/// The codec of all our services: `T` goes out, `U` comes in.
#[derive(Debug)]
pub struct MessagePack<T, U>(PhantomData<fn(T) -> U>);

impl<T, U> Default for MessagePack<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for MessagePack<T, U>
where
    T: Serialize + Send + 'static,
    U: DeserializeOwned + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = Out<T>;
    type Decoder = In<U>;

    fn encoder(&mut self) -> Out<T> {
        Out(PhantomData)
    }

    fn decoder(&mut self) -> In<U> {
        In(PhantomData)
    }
}

/// Writes messages of one type.
#[derive(Debug)]
pub struct Out<T>(PhantomData<fn(T)>);

impl<T: Serialize> Encoder for Out<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        rmp_serde::encode::write_named(&mut into.writer(), &item)
            .map_err(|error| Status::internal(CodecError::from(error).to_string()))
    }
}

/// Reads messages of one type.
#[derive(Debug)]
pub struct In<U>(PhantomData<fn() -> U>);

impl<U: DeserializeOwned> Decoder for In<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let bytes: Bytes = from.copy_to_bytes(from.remaining());
        decode(&bytes).map(Some).map_err(|error| Status::invalid_argument(error.to_string()))
    }
}
