#include "comm/transport/ucx/ucx_worker.h"

#include <dlfcn.h>
#include <signal.h>
#include <ucs/config/global_opts.h>
#include <ucs/debug/debug.h>

#include <cstdlib>
#include <cstring>
#include <mutex>

#include "absl/strings/str_cat.h"

namespace cohort::comm::ucx {
namespace {

absl::Status Failed(const char* what, ucs_status_t status) {
  return absl::UnavailableError(absl::StrCat("UCX: ", what, ": ", ucs_status_string(status)));
}

// The library takes over signals when it is loaded, and it logs lost peers, which are values here.
// Both stay as they are where the environment asks for them.
void QuietOnce() {
  static std::once_flag once;
  std::call_once(once, [] {
    if (std::getenv("UCX_LOG_LEVEL") == nullptr) ucs_global_opts_set_value("LOG_LEVEL", "fatal");
    if (std::getenv("UCX_HANDLE_ERRORS") != nullptr) return;
    ucs_global_opts_set_value("HANDLE_ERRORS", "none");
    for (const int number : {SIGILL, SIGSEGV, SIGBUS, SIGFPE, SIGABRT}) {
      struct sigaction action = {};
      Dl_info from = {};
      // A handler that the program has installed since then is its own.
      if (sigaction(number, nullptr, &action) == 0 && (action.sa_flags & SA_SIGINFO) != 0 &&
          dladdr(reinterpret_cast<void*>(action.sa_sigaction), &from) != 0 && from.dli_fname != nullptr &&
          std::strstr(from.dli_fname, "libucs") != nullptr) {
        ucs_debug_disable_signal(number);
      }
    }
  });
}

// Settings that the environment has not made.
void Configure(ucp_config_t* config, const std::string& device) {
  const struct {
    const char* name;  // as the environment has it, after UCX_
    const char* value;
    const char* alias = nullptr;
  } settings[] = {
      {"TLS", "^sm,self"},            // memory inside a host is ours, which can tell who is alive
      {"KEEPALIVE_INTERVAL", "inf"},  // so are the signs of life: the transport's own reach stopped processes
      // UCX 1.13 aborts (an assertion in uct_iface.h) where an endpoint ends by force while it sends without
      // a copy.
      {"ZCOPY_THRESH", "inf"},
      // A piece in one segment, and one system call: of 8 KiB, the default, it would be eight, put together again by
      // the receiver. UCX 1.13 knows settings of a transport without its name, later ones with it; what they do not
      // know they ignore.
      {"TCP_TX_SEG_SIZE", "64k", "TX_SEG_SIZE"},
      {"TCP_RX_SEG_SIZE", "64k", "RX_SEG_SIZE"},
      // UCX takes events of several connections at a time, and aborts (an assertion in tcp_iface.c) where the first of
      // them leads to the end of another's connection: as a send to a lost peer, in answer to what another says, does.
      {"TCP_MAX_POLL", "1", "MAX_POLL"},
  };
  for (const auto& setting : settings) {
    if (std::getenv(absl::StrCat("UCX_", setting.name).c_str()) != nullptr) continue;
    ucp_config_modify(config, setting.name, setting.value);
    if (setting.alias != nullptr) ucp_config_modify(config, setting.alias, setting.value);
  }
  const char* devices = device.empty() ? std::getenv("COHORT_NET_DEVICES") : device.c_str();
  if (devices != nullptr && *devices != '\0') ucp_config_modify(config, "NET_DEVICES", devices);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Worker>> Worker::Create(const std::string& device) {
  QuietOnce();
  auto made = std::unique_ptr<Worker>(new Worker);
  ucp_config_t* config = nullptr;
  ucs_status_t status = ucp_config_read(nullptr, nullptr, &config);
  if (status != UCS_OK) return Failed("cannot read its configuration (UCX_* variables)", status);
  Configure(config, device);

  ucp_params_t params = {};
  params.field_mask = UCP_PARAM_FIELD_FEATURES;
  params.features = UCP_FEATURE_AM | UCP_FEATURE_WAKEUP;
  status = ucp_init(&params, config, &made->context_);
  ucp_config_release(config);
  if (status != UCS_OK) {
    return Failed(device.empty() ? "no usable network (COHORT_NET_DEVICES, UCX_TLS)"
                                 : absl::StrCat("no usable network interface ", device).c_str(),
                  status);
  }

  ucp_worker_params_t worker = {};
  worker.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE;
  worker.thread_mode = UCS_THREAD_MODE_SERIALIZED;  // the engine's lock
  status = ucp_worker_create(made->context_, &worker, &made->worker_);
  if (status != UCS_OK) return Failed("cannot make a worker", status);
  status = ucp_worker_get_efd(made->worker_, &made->event_fd_);
  if (status != UCS_OK) return Failed("the transports chosen cannot be waited for", status);

  ucp_address_t* address = nullptr;
  size_t length = 0;
  status = ucp_worker_get_address(made->worker_, &address, &length);
  if (status != UCS_OK) return Failed("the worker has no address", status);
  made->address_.assign(reinterpret_cast<const char*>(address), length);
  ucp_worker_release_address(made->worker_, address);
  return made;
}

absl::Status Worker::Handle(unsigned number, ucp_am_recv_callback_t callback, void* arg) {
  ucp_am_handler_param_t handler = {};
  handler.field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_FLAGS |
                       UCP_AM_HANDLER_PARAM_FIELD_CB | UCP_AM_HANDLER_PARAM_FIELD_ARG;
  handler.id = number;
  handler.flags = UCP_AM_FLAG_WHOLE_MSG;
  handler.cb = callback;
  handler.arg = arg;
  const ucs_status_t status = ucp_worker_set_am_recv_handler(worker_, &handler);
  return status == UCS_OK ? absl::OkStatus() : Failed("cannot handle active messages", status);
}

Worker::~Worker() {
  if (worker_ != nullptr) ucp_worker_destroy(worker_);
  if (context_ != nullptr) ucp_cleanup(context_);
}

}  // namespace cohort::comm::ucx
