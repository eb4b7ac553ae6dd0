//! MessagePack with field names, as a codec of gRPC.

use bytes::{Buf, BufMut, Bytes};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::marker::PhantomData;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

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
        let bytes = msgpack::encode(&item).map_err(|error| Status::internal(error.to_string()))?;
        into.put_slice(&bytes);
        Ok(())
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
        msgpack::decode_sent(&bytes)
            .map(Some)
            .map_err(|error| Status::invalid_argument(error.to_string()))
    }
}
