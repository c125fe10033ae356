// A real etcd of a test's own.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>

#include "tests/support/temp_folder.h"

namespace cohort::cluster {

class EtcdProcess {
 public:
  // Null where no etcd is installed or it does not start.
  static std::unique_ptr<EtcdProcess> Start();
  ~EtcdProcess();

  const std::string& address() const { return address_; }  // HOST:PORT
  // As a machine that stops answering.
  void Pause();
  void Resume();

 private:
  TempFolder folder_;
  std::string address_;
  pid_t pid_ = -1;
};

}  // namespace cohort::cluster
