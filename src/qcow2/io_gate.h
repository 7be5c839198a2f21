// SPDX-License-Identifier: GPL-3.0-or-later
//
// IoGate: who frees clusters waits for whoever may still be reading or writing them.
//
// Every request holds a Pass from before it looks up where its bytes lie until it is done with them. A freed cluster
// gets a new owner only after wait_for_earlier(): the passes given out later cannot have seen the old mapping. What
// changes the whole image (snapshots, resizing) closes the gate.
//
// A pass costs two additions to a counter that few other threads use: requests are many, and who waits for them is
// rare.
//
// Thread-safety: full. Neither wait_for_earlier() nor close() may be called by a thread that holds a Pass.

#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <mutex>

namespace drydock::qcow2 {

class IoGate {
  // Passes by generation, of the threads that count here.
  struct alignas(64) Counters {
    std::array<std::atomic<unsigned>, 2> inside{};
  };

 public:
  class Pass {
   public:
    explicit Pass(IoGate& gate) : gate_(gate), counter_(&gate.enter()) {}
    // Does not wait: it is no pass, and false, while the gate is closed.
    Pass(IoGate& gate, std::try_to_lock_t) : gate_(gate), counter_(gate.try_enter()) {}
    Pass(const Pass&) = delete;
    Pass& operator=(const Pass&) = delete;
    ~Pass() {
      if (counter_ != nullptr) gate_.leave(*counter_);
    }
    explicit operator bool() const { return counter_ != nullptr; }

   private:
    IoGate& gate_;
    std::atomic<unsigned>* counter_;
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
  static constexpr unsigned generation_bit = 1;
  static constexpr unsigned closed_bit = 2;
  static constexpr size_t counters_count = 16;

  Counters& own_counters();
  bool is_empty(unsigned generation) const;
  void wait_until_empty(std::unique_lock<std::mutex>& lock, unsigned generation);

  std::atomic<unsigned>& enter();
  std::atomic<unsigned>* try_enter();
  void leave(std::atomic<unsigned>& counter);
  void close();
  void open();

  std::atomic<unsigned> state_ = 0;    // generation_bit: of the passes given out now; changed under mutex_
  std::atomic<unsigned> waiting_ = 0;  // threads that want to hear of passes that are given back
  std::array<Counters, counters_count> counters_;
  std::mutex waiters_;  // one waits for a generation at a time; taken before mutex_
  std::mutex mutex_;
  std::condition_variable changed_;
};

}  // namespace drydock::qcow2
