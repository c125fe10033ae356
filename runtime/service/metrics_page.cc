#include "runtime/service/metrics_page.h"

#include <prometheus/exposer.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <exception>

#include "absl/strings/str_cat.h"

namespace cohort::runtime {

MetricsPage::MetricsPage() : registry_(std::make_shared<prometheus::Registry>()) {}
MetricsPage::~MetricsPage() = default;

absl::Status MetricsPage::Expose(const std::string& address) {
  try {
    exposer_ = std::make_unique<prometheus::Exposer>(address);
  } catch (const std::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat("metrics: cannot listen on '", address, "' (",
                                                   error.what(), "); name a free host:port"));
  }
  exposer_->RegisterCollectable(registry_);
  return absl::OkStatus();
}

int MetricsPage::port() const { return exposer_ == nullptr ? 0 : exposer_->GetListeningPorts().front(); }

std::string MetricsPage::Text() const { return prometheus::TextSerializer().Serialize(registry_->Collect()); }

}  // namespace cohort::runtime
