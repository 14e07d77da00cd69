# A function's behaviour when a secret is rotated, and when Vault is down. Needs thaw-dev: see ../README.md.
require "minitest/autorun"
require "securerandom"
require "fileutils"
require "tmpdir"
require_relative "app"

Context = Struct.new(:aws_request_id)

class AppTest < Minitest::Test
  def setup
    @folder = Dir.mktmpdir
    set "one"
    @dev = IO.popen(["thaw-dev", "-listen", "127.0.0.1:0", "#{@folder}/secrets.json"])
    ENV["SECRETS_ADDR"] = line(/VAULT_ADDR=(\S+)/)[1]
  end

  def teardown
    Process.kill("TERM", @dev.pid)
    @dev.close
    FileUtils.rm_r(@folder)
  end

  def set(password) = File.write("#{@folder}/secrets.json", { "secret/data/app" => { user: "app", password: } }.to_json)

  def line(pattern)
    while (text = @dev.gets)
      found = pattern.match(text)
      return found if found
    end
    flunk "thaw-dev ended"
  end

  def control(what) = Net::HTTP.post(URI("#{ENV["SECRETS_ADDR"]}/dev/#{what}"), "")

  def invocation = handler(event: {}, context: Context.new(SecureRandom.uuid))

  def test_the_next_invocation_sees_a_rotation_and_an_outage_stops_nothing
    assert_equal({ user: "app", password_length: 3 }, invocation)
    set "longer"
    line(/^rotated/)
    assert_equal({ user: "app", password_length: 6 }, invocation)
    control "down"
    assert_equal({ user: "app", password_length: 6 }, invocation)
  end

  def test_the_status_is_shown_where_it_is_switched_on
    status = -> { handler(event: { "thaw" => "status" }, context: Context.new(SecureRandom.uuid)) }
    assert_equal({ user: "app", password_length: 3 }, status.call)
    ENV["SHOW_THAW_STATUS"] = "true"
    assert_equal 1, status.call["cache"]["entries"]
  ensure
    ENV.delete("SHOW_THAW_STATUS")
  end

  def test_without_vault_a_new_function_fails
    control "down"
    error = assert_raises(RuntimeError) { invocation }
    assert_match(/status 502/, error.message)
  end
end
