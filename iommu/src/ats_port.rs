//! The SMMU as endpoints with a translation cache see it.

use std::sync::Weak;

use hw::ats::{
    AtsEndpoint, AtsPort, AtsRefusal, AtsTranslation, InvalidateTag, PageRequest, Stamp, TranslatedFault,
    TranslationRequest,
};
use hw::{Pa, StreamId};

use crate::smmu::Smmu;
use crate::stats::count;

impl AtsPort for Smmu {
    fn attach(&self, stream: StreamId, endpoint: Weak<dyn AtsEndpoint>) {
        self.endpoints.attach(stream.0, endpoint);
    }

    fn request_translation(&self, request: &TranslationRequest) -> Result<AtsTranslation, AtsRefusal> {
        count(&self.stats.translation_requests);
        self.answer_request(request)
    }

    fn read_translated_if(
        &self,
        stream: StreamId,
        at: Pa,
        out: &mut [u8],
        from: Stamp<'_>,
    ) -> Result<(), TranslatedFault> {
        if let Some((_access, span)) = self.enter_admitted(stream, at, out.len(), from) {
            span.read(out);
            return Ok(());
        }
        self.read_checked(stream, at, out, from)
    }

    fn write_translated_if(
        &self,
        stream: StreamId,
        at: Pa,
        data: &[u8],
        from: Stamp<'_>,
    ) -> Result<(), TranslatedFault> {
        if let Some((_access, span)) = self.enter_admitted(stream, at, data.len(), from) {
            span.write(data);
            return Ok(());
        }
        self.write_checked(stream, at, data, from)
    }

    fn await_translated(&self) {
        self.inflight.wait();
    }

    fn request_page(&self, request: &PageRequest) {
        self.take_page_request(request);
    }

    fn invalidate_completed(&self, stream: StreamId, tag: InvalidateTag) {
        self.complete_invalidation(stream.0, tag);
    }
}
