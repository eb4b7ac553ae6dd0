//! Leases: what keeps containerd's garbage collector away from an image that is being made.

use crate::client::{Client, QUICK};
use crate::error::{Error, Gone};
use containerd_client::services::v1::{CreateRequest, DeleteRequest};
use std::sync::atomic::{AtomicU64, Ordering};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// When containerd drops a lease that was left behind by a daemon that died.
const LEASE_MAX: time::Duration = time::Duration::hours(24);

impl Client {
    /// Runs work under a lease, and gives the lease back whatever comes of it.
    pub(crate) async fn with_lease<T, F>(&self, work: impl FnOnce(Client) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let id = self.take_lease().await?;
        let outcome = work(self.leased(&id)).await;
        let body = DeleteRequest { id, sync: false };
        let deleted = self.call("give back a lease", QUICK, body);
        if let Err(error) = deleted.await.or_gone() {
            tracing::warn!(%error, "a lease stays until it expires");
        }
        outcome
    }

    async fn take_lease(&self) -> Result<String, Error> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let now = OffsetDateTime::now_utc();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let id = format!("skep-{}-{number}", now.unix_timestamp_nanos());
        let expire = (now + LEASE_MAX).format(&Rfc3339).unwrap_or_default();
        let labels = [("containerd.io/gc.expire".to_owned(), expire)].into_iter().collect();
        let body = CreateRequest { id: id.clone(), labels };
        let made = self.call("take a lease", QUICK, body);
        made.await.map(|_| id)
    }
}
