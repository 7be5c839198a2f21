// SPDX-License-Identifier: GPL-3.0-or-later
//
// IoGate: who frees clusters waits for whoever may still be reading or writing them.
//
// Every request holds a Pass from before it looks up where its bytes lie until it is done with them. A freed cluster
// gets a new owner only after wait_for_earlier(): the passes given out later cannot have seen the old mapping. What
// changes the whole image (snapshots, resizing) closes the gate.
//
// Thread-safety: full. Neither wait_for_earlier() nor close() may be called by a thread that holds a Pass.

#pragma once

#include <array>
#include <condition_variable>
#include <mutex>

namespace drydock::qcow2 {

class IoGate {
 public:
  class Pass {
   public:
    explicit Pass(IoGate& gate) : gate_(gate), generation_(gate.enter()) {}
    Pass(const Pass&) = delete;
    Pass& operator=(const Pass&) = delete;
    ~Pass() { gate_.leave(generation_); }

   private:
    IoGate& gate_;
    unsigned generation_;
  };

  // While it lives nobody is inside.
  class Closure {
   public:
    explicit Closure(IoGate& gate) : gate_(gate) { gate_.close(); }
    Closure(const Closure&) = delete;
    Closure& operator=(const Closure&) = delete;
    ~Closure() { gate_.open(); }

   private:
    IoGate& gate_;
  };

  // Returns when all passes given out before the call are gone; new ones go on being given out.
  void wait_for_earlier();

 private:
  unsigned enter();
  void leave(unsigned generation);
  void close();
  void open();

  std::mutex waiters_;  // one waits at a time; taken before mutex_
  std::mutex mutex_;
  std::condition_variable changed_;
  bool closed_ = false;
  unsigned generation_ = 0;           // 0 or 1, of the passes given out now
  std::array<unsigned, 2> inside_{};  // passes by generation
};

}  // namespace drydock::qcow2
