#include "replay.hpp"

#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <sstream>

#include "common.hpp"

namespace {

using Shape = std::vector<py::ssize_t>;

std::string show(const Shape& shape) {
  std::ostringstream out;
  out << '[';
  for (std::size_t d = 0; d < shape.size(); ++d) out << (d ? ", " : "") << shape[d];
  out << ']';
  return out.str();
}

Shape shape_of(const py::array& array) { return {array.shape(), array.shape() + array.ndim()}; }

Shape join(std::initializer_list<py::ssize_t> head, const Shape& tail) {
  Shape out(head);
  out.insert(out.end(), tail.begin(), tail.end());
  return out;
}

py::ssize_t product(const Shape& shape) {
  py::ssize_t n = 1;
  for (const py::ssize_t d : shape) n *= d;
  return n;
}

// The array must be exactly this: a wrong dtype is refused, never converted.
void expect(const py::array& array, const py::dtype& dtype, const Shape& shape, const char* name) {
  if (array.dtype().is(dtype) || array.dtype().equal(dtype)) {
    if (shape_of(array) == shape && (array.flags() & py::array::c_style)) return;
  }
  const char* order = array.flags() & py::array::c_style ? "" : ", not contiguous";
  throw py::value_error(std::string(name) + " must be " + std::string(py::str(dtype)) + " " + show(shape) +
                        ", contiguous; got " + std::string(py::str(array.dtype())) + " " + show(shape_of(array)) + order);
}

template <typename T>
const T* read(const py::array& array) {
  return static_cast<const T*>(array.data());
}

void check_finite(const py::array& array, const char* name) {
  const auto scan = [&]<typename T>(const T* value) {
    for (py::ssize_t j = 0; j < array.size(); ++j)
      if (!std::isfinite(value[j]))
        throw py::value_error(std::string(name) + " holds " + std::to_string(value[j]) + " at " + std::to_string(j));
  };
  if (array.dtype().kind() != 'f') return;
  if (array.itemsize() == 4) scan(read<float>(array));
  if (array.itemsize() == 8) scan(read<double>(array));
}

// What no replay can be, wherever its memory is.
void check_sizes(const Shape& frame_shape, const Shape& action_shape, py::ssize_t stack, py::ssize_t streams,
                 py::ssize_t per_stream, std::int64_t max_n, std::int64_t max_k, double alpha) {
  const auto need = [](bool holds, const std::string& what) {
    if (!holds) throw py::value_error(what);
  };
  need(product(frame_shape) > 0, "frame_shape must be positive, got " + show(frame_shape));
  need(product(action_shape) > 0, "action_shape must be positive, got " + show(action_shape));
  need(stack >= 1, "stack must be >= 1, got " + std::to_string(stack));
  need(streams >= 1, "streams must be >= 1, got " + std::to_string(streams));
  need(1 <= max_n && max_n < 1 << 20, "max_n must be in [1, 2^20), got " + std::to_string(max_n));
  need(0 <= max_k && max_k < 1 << 20, "max_k must be in [0, 2^20), got " + std::to_string(max_k));
  need(alpha >= 0.0 && std::isfinite(alpha), "alpha must be finite and >= 0, got " + std::to_string(alpha));
  const std::int64_t least = rlp::Replay::least_slots(stack, {max_n, max_k});
  need(per_stream >= least, "each stream needs at least " + std::to_string(least) +
                                " slots for this n, k and stack, got " + std::to_string(per_stream));
  need(per_stream <= (py::ssize_t{1} << 27) / streams, "at most 2^27 slots in all");
}

// The replay with the dtypes and shapes that Python sees. All checks are made here or in rlp::Replay before the first
// write; what loops runs without the GIL.
class BoundReplay {
 public:
  BoundReplay(Shape frame_shape, py::dtype frame_dtype, Shape action_shape, py::dtype action_dtype, py::ssize_t actions,
              py::ssize_t stack, py::ssize_t streams, py::ssize_t per_stream, std::int64_t max_n, std::int64_t max_k,
              double alpha, const std::string& folder)
      : frame_shape_(std::move(frame_shape)),
        action_shape_(std::move(action_shape)),
        frame_dtype_(std::move(frame_dtype)),
        action_dtype_(std::move(action_dtype)),
        actions_(actions),
        stack_(stack) {
    check_sizes(frame_shape_, action_shape_, stack, streams, per_stream, max_n, max_k, alpha);
    const rlp::Horizon horizon{max_n, max_k};
    const rlp::RingShape shape{static_cast<std::size_t>(product(frame_shape_) * frame_dtype_.itemsize()),
                               static_cast<std::size_t>(product(action_shape_) * action_dtype_.itemsize()),
                               static_cast<std::size_t>(stack), static_cast<std::size_t>(streams),
                               static_cast<std::size_t>(per_stream)};
    try {
      replay_ = std::make_unique<rlp::Replay>(shape, horizon, alpha, folder);
    } catch (const std::system_error& error) {
      PyErr_SetString(PyExc_OSError, error.what());
      throw py::error_already_set();
    }
  }

  void add(const py::array& frame, const py::array& first, const py::array& action, const py::array& reward,
           const py::array& terminated, const py::array& truncated, const py::array& final_frame,
           const py::array& final_at, py::ssize_t first_env) {
    if (first.ndim() != 2) throw py::value_error("first must be bool [T, N], got " + show(shape_of(first)));
    const py::ssize_t steps = first.shape(0), envs = first.shape(1), finals = final_at.ndim() ? final_at.shape(0) : 0;
    const Shape rows{steps, envs};
    expect(frame, frame_dtype_, join({steps, envs}, frame_shape_), "frame");
    expect(first, bool_, rows, "first");
    expect(action, action_dtype_, join({steps, envs}, action_shape_), "action");
    expect(reward, f32_, rows, "reward");
    expect(terminated, bool_, rows, "terminated");
    expect(truncated, bool_, rows, "truncated");
    expect(final_at, i64_, {finals, 2}, "final_at");
    expect(final_frame, frame_dtype_, join({finals}, frame_shape_), "final_frame");
    if (first_env < 0) throw py::value_error("first_env must be >= 0, got " + std::to_string(first_env));
    check_finite(frame, "frame");
    check_finite(final_frame, "final_frame");
    check_action(action);
    const rlp::RolloutView view{static_cast<std::size_t>(steps), static_cast<std::size_t>(envs),
                                static_cast<std::size_t>(first_env), read<std::byte>(frame),
                                read<std::uint8_t>(first), read<std::byte>(action), read<float>(reward),
                                read<std::uint8_t>(terminated), read<std::uint8_t>(truncated),
                                static_cast<std::size_t>(finals), read<std::byte>(final_frame),
                                read<std::int64_t>(final_at)};
    const py::gil_scoped_release nogil;
    replay_->add(view);
  }

  py::tuple sample(py::ssize_t batch, std::int64_t n, const py::object& gamma, std::int64_t k, std::uint64_t key,
                   std::uint64_t counter, const std::optional<py::tuple>& out) const {
    if (batch < 1) throw py::value_error("batch must be >= 1, got " + std::to_string(batch));
    const std::vector<double> gammas = check_query(batch, n, gamma, k);
    const py::tuple arrays = outputs(batch, k, out);
    const rlp::BatchView view = view_of(arrays);
    const rlp::Query query{static_cast<std::size_t>(batch), n, k, gammas.data()};
    {
      const py::gil_scoped_release nogil;
      replay_->sample(query, rlp::Stream{key, counter}, view);
    }
    return arrays;
  }

  py::tuple gather(const py::array& index, std::int64_t n, const py::object& gamma, std::int64_t k,
                   const std::optional<py::tuple>& out) const {
    expect(index, i64_, {index.size()}, "index");
    const std::vector<double> gammas = check_query(index.size(), n, gamma, k);
    const py::tuple arrays = outputs(index.size(), k, out);
    const rlp::BatchView view = view_of(arrays);
    const rlp::Query query{static_cast<std::size_t>(index.size()), n, k, gammas.data()};
    const auto* items = read<std::int64_t>(index);
    {
      const py::gil_scoped_release nogil;
      replay_->gather(items, query, view);
    }
    return arrays;
  }

  void update_priority(const py::array& index, const py::array& priority) {
    expect(index, i64_, {index.size()}, "index");
    const bool single = priority.dtype().kind() == 'f' && priority.itemsize() == 4;
    expect(priority, single ? f32_ : f64_, {index.size()}, "priority");
    const std::size_t n = static_cast<std::size_t>(index.size());
    const auto* items = read<std::int64_t>(index);
    std::vector<double> value(n);
    if (single) std::copy_n(read<float>(priority), n, value.begin());
    else std::copy_n(read<double>(priority), n, value.begin());
    const py::gil_scoped_release nogil;
    replay_->update_priority(items, value.data(), n);
  }

  Vector<std::int64_t> eligible() const {
    std::vector<std::int64_t> items;
    {
      const py::gil_scoped_release nogil;
      items = replay_->eligible();
    }
    return Vector<std::int64_t>(static_cast<py::ssize_t>(items.size()), items.data());
  }

  py::array_t<std::int64_t> draw(py::ssize_t batch, std::uint64_t key, std::uint64_t counter) const {
    if (batch < 1) throw py::value_error("batch must be >= 1, got " + std::to_string(batch));
    py::array_t<std::int64_t> index(batch);
    std::vector<double> u(static_cast<std::size_t>(batch));
    std::int64_t* const out = index.mutable_data();
    {
      const py::gil_scoped_release nogil;
      replay_->draw(u.size(), rlp::Stream{key, counter}, u.data(), out);
    }
    return index;
  }

  std::int64_t size() const { return replay_->size(); }
  bool can_sample() const { return replay_->can_sample(); }
  std::size_t nbytes() const { return replay_->bytes(); }
  double max_priority() const { return replay_->max_priority(); }
  double mean_abs_reward() const {
    const py::gil_scoped_release nogil;
    return replay_->mean_abs_reward();
  }

  // --- checkpoints ---
  Vector<std::int64_t> counts() const {
    const std::size_t streams = replay_->shape().streams;
    Vector<std::int64_t> out(static_cast<py::ssize_t>(streams));
    for (std::size_t s = 0; s < streams; ++s) out.mutable_data()[s] = replay_->count(s);
    return out;
  }

  Vector<double> priorities() const {
    Vector<double> out({replay_->shape().streams, replay_->shape().per_stream});
    replay_->read_priorities(out.mutable_data());
    return out;
  }

  py::tuple read_slots(py::ssize_t stream, std::int64_t begin, std::int64_t end) const {
    check_stream(stream);
    if (begin < 0 || end < begin) throw py::value_error("slots must be given as 0 <= begin <= end");
    const py::ssize_t n = end - begin;
    py::array frame(frame_dtype_, join({n}, frame_shape_)), action(action_dtype_, join({n}, action_shape_));
    Vector<float> reward(n);
    Vector<std::uint8_t> bits(n);
    auto *frames = static_cast<std::byte*>(frame.mutable_data()), *acts = static_cast<std::byte*>(action.mutable_data());
    auto* rewards = reward.mutable_data();
    auto* flags = bits.mutable_data();
    {
      const py::gil_scoped_release nogil;
      replay_->read_slots(static_cast<std::size_t>(stream), begin, end, frames, acts, rewards, flags);
    }
    return py::make_tuple(frame, action, reward, bits);
  }

  void write_slots(py::ssize_t stream, std::int64_t begin, const py::array& frame, const py::array& action,
                   const py::array& reward, const py::array& bits) {
    check_stream(stream);
    const py::ssize_t n = reward.size();
    expect(frame, frame_dtype_, join({n}, frame_shape_), "frame");
    expect(action, action_dtype_, join({n}, action_shape_), "action");
    expect(reward, f32_, {n}, "reward");
    expect(bits, u8_, {n}, "bits");
    if (begin < 0) throw py::value_error("slots must begin at 0 or later");
    const auto *frames = read<std::byte>(frame), *acts = read<std::byte>(action);
    const auto* rewards = read<float>(reward);
    const auto* flags = read<std::uint8_t>(bits);
    const py::gil_scoped_release nogil;
    replay_->write_slots(static_cast<std::size_t>(stream), begin, begin + n, frames, acts, rewards, flags);
  }

  void restore(const py::array& counts, const py::array& priorities, double max_priority) {
    const auto streams = static_cast<py::ssize_t>(replay_->shape().streams);
    expect(counts, i64_, {streams}, "counts");
    expect(priorities, f64_, {streams, static_cast<py::ssize_t>(replay_->shape().per_stream)}, "priority");
    for (py::ssize_t s = 0; s < streams; ++s)
      if (read<std::int64_t>(counts)[s] < 0) throw py::value_error("counts must be >= 0");
    const auto valid = [](double p) { return p >= 0.0 && p <= rlp::Replay::kMaxPriority; };
    const auto* priority = read<double>(priorities);
    if (!std::all_of(priority, priority + priorities.size(), valid) || !valid(max_priority))
      throw py::value_error("priorities must be in [0, 1e300]");
    const auto* count = read<std::int64_t>(counts);
    const py::gil_scoped_release nogil;
    replay_->restore(count, priority, max_priority);
  }

 private:
  void check_stream(py::ssize_t stream) const {
    if (stream < 0 || static_cast<std::size_t>(stream) >= replay_->shape().streams)
      throw py::value_error("stream " + std::to_string(stream) + " is beyond the replay's " +
                            std::to_string(replay_->shape().streams));
  }

  void check_action(const py::array& action) const {
    check_finite(action, "action");
    if (!actions_) return;
    const auto* a = read<std::int64_t>(action);
    for (py::ssize_t j = 0; j < action.size(); ++j)
      if (a[j] < 0 || a[j] >= actions_)
        throw py::value_error("action holds " + std::to_string(a[j]) + ", there are " + std::to_string(actions_));
  }

  // gamma as [B] doubles, after n, k and gamma are found in range.
  std::vector<double> check_query(py::ssize_t batch, std::int64_t n, const py::object& gamma, std::int64_t k) const {
    const rlp::Horizon& built = replay_->horizon();
    if (n < 1 || n > built.max_n)
      throw py::value_error("n must be in [1, " + std::to_string(built.max_n) + "], got " + std::to_string(n));
    if (k < 0 || k > built.max_k)
      throw py::value_error("k must be in [0, " + std::to_string(built.max_k) + "], got " + std::to_string(k));
    std::vector<double> out;
    if (py::isinstance<py::array>(gamma) && py::reinterpret_borrow<py::array>(gamma).ndim() > 0) {
      const auto array = py::reinterpret_borrow<py::array>(gamma);
      expect(array, f64_, {batch}, "gamma");
      out.assign(read<double>(array), read<double>(array) + batch);
    } else {
      out.assign(static_cast<std::size_t>(batch), gamma.cast<double>());
    }
    for (const double g : out)
      if (!(0.0 <= g && g <= 1.0)) throw py::value_error("gamma must be in [0, 1], got " + std::to_string(g));
    return out;
  }

  // The arrays of a batch, in the order of rlp::BatchView: those of `out` once they are found right, or new ones.
  py::tuple outputs(py::ssize_t rows, std::int64_t k, const std::optional<py::tuple>& out) const {
    const py::ssize_t h = std::max<py::ssize_t>(k, 1);
    const Shape observation = join({stack_}, frame_shape_);
    const struct {
      const char* name;
      const py::dtype& dtype;
      Shape shape;
    } fields[] = {
        {"out.obs", frame_dtype_, join({rows, k + 1}, observation)},
        {"out.action", action_dtype_, join({rows, h}, action_shape_)},
        {"out.reward", f32_, {rows, h}},
        {"out.terminated", bool_, {rows, h}},
        {"out.mask", bool_, {rows, k}},
        {"out.n_return", f32_, {rows}},
        {"out.discount", f32_, {rows}},
        {"out.next_obs", frame_dtype_, join({rows}, observation)},
        {"out.index", i64_, {rows}},
        {"out.priority", f64_, {rows}},
    };
    if (!out) {
      py::tuple made(std::size(fields));
      for (std::size_t f = 0; f < std::size(fields); ++f) made[f] = py::array(fields[f].dtype, fields[f].shape);
      return made;
    }
    if (out->size() != std::size(fields)) throw py::value_error("out must be a Batch");
    for (std::size_t f = 0; f < std::size(fields); ++f) {
      const py::object item = (*out)[f];
      if (!py::isinstance<py::array>(item)) throw py::value_error(std::string(fields[f].name) + " must be an array");
      const auto array = py::reinterpret_borrow<py::array>(item);
      expect(array, fields[f].dtype, fields[f].shape, fields[f].name);
      if (!array.writeable()) throw py::value_error(std::string(fields[f].name) + " is read-only");
    }
    return *out;
  }

  static rlp::BatchView view_of(const py::tuple& arrays) {
    const auto data = [&](std::size_t f) { return py::reinterpret_borrow<py::array>(arrays[f]).mutable_data(); };
    return {static_cast<std::byte*>(data(0)),    static_cast<std::byte*>(data(1)),    static_cast<float*>(data(2)),
            static_cast<std::uint8_t*>(data(3)), static_cast<std::uint8_t*>(data(4)), static_cast<float*>(data(5)),
            static_cast<float*>(data(6)),        static_cast<std::byte*>(data(7)),    static_cast<std::int64_t*>(data(8)),
            static_cast<double*>(data(9))};
  }

  Shape frame_shape_, action_shape_;
  py::dtype frame_dtype_, action_dtype_;
  py::dtype bool_ = py::dtype::of<bool>(), u8_ = py::dtype::of<std::uint8_t>(), i64_ = py::dtype::of<std::int64_t>();
  py::dtype f32_ = py::dtype::of<float>(), f64_ = py::dtype::of<double>();
  py::ssize_t actions_, stack_;
  std::unique_ptr<rlp::Replay> replay_;
};

}  // namespace

void bind_replay(py::module_& m) {
  py::class_<BoundReplay>(m, "Replay", "rlp::Replay behind the checks; rlplatform.replay.Replay is its face.")
      .def(py::init<Shape, py::dtype, Shape, py::dtype, py::ssize_t, py::ssize_t, py::ssize_t, py::ssize_t, std::int64_t,
                    std::int64_t, double, const std::string&>(),
           "frame_shape"_a, "frame_dtype"_a, "action_shape"_a, "action_dtype"_a, "actions"_a, "stack"_a, "streams"_a,
           "per_stream"_a, "max_n"_a, "max_k"_a, "alpha"_a, "folder"_a)
      .def("add", &BoundReplay::add, "frame"_a, "first"_a, "action"_a, "reward"_a, "terminated"_a, "truncated"_a,
           "final_frame"_a, "final_at"_a, "first_env"_a)
      .def("sample", &BoundReplay::sample, "batch"_a, "n"_a, "gamma"_a, "k"_a, "key"_a, "counter"_a, "out"_a)
      .def("draw", &BoundReplay::draw, "batch"_a, "key"_a, "counter"_a)
      .def("gather", &BoundReplay::gather, "index"_a, "n"_a, "gamma"_a, "k"_a, "out"_a)
      .def("update_priority", &BoundReplay::update_priority, "index"_a, "priority"_a)
      .def("eligible", &BoundReplay::eligible)
      .def("counts", &BoundReplay::counts)
      .def("priorities", &BoundReplay::priorities)
      .def("read_slots", &BoundReplay::read_slots, "stream"_a, "begin"_a, "end"_a)
      .def("write_slots", &BoundReplay::write_slots, "stream"_a, "begin"_a, "frame"_a, "action"_a, "reward"_a, "bits"_a)
      .def("restore", &BoundReplay::restore, "counts"_a, "priorities"_a, "max_priority"_a)
      .def_property_readonly("size", &BoundReplay::size)
      .def_property_readonly("can_sample", &BoundReplay::can_sample)
      .def_property_readonly("nbytes", &BoundReplay::nbytes)
      .def_property_readonly("max_priority", &BoundReplay::max_priority)
      .def_property_readonly("mean_abs_reward", &BoundReplay::mean_abs_reward);
  m.def("check_replay", &check_sizes, "frame_shape"_a, "action_shape"_a, "stack"_a, "streams"_a, "per_stream"_a, "max_n"_a,
        "max_k"_a, "alpha"_a, "Refuse the sizes that no replay can have.");
}
